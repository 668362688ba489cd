// tests/multiprocess/low_latency.cpp on the CUDA engine: linked into this program, which chooses that engine. A
// program of its own: a process that has used CUDA must not fork.
#include "gpu/low_latency/gpu_engine.hpp"

namespace switchyard::test {
namespace {

GpuSlotEngine const gpu_engine;
bool const chosen = use_slot_engine(gpu_engine);

}  // namespace
}  // namespace switchyard::test
