// Ranks as processes on the CUDA engine: this program chooses it for its own tests and for those of
// tests/multiprocess/low_latency.cpp, which is linked into it.
#include "gpu/low_latency/gpu_engine.hpp"

namespace switchyard::test {
namespace {

GpuSlotEngine const gpu_engine;
bool const chosen = use_slot_engine(gpu_engine);

}  // namespace
}  // namespace switchyard::test
