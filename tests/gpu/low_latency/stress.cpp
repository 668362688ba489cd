// The stress of tests/conformance on the CUDA engine: linked into this program, which chooses that engine.
#include "gpu/low_latency/gpu_engine.hpp"

namespace switchyard::test {
namespace {

GpuThreadsEngine const gpu_engine;
bool const chosen = use_slot_engine(gpu_engine);

}  // namespace
}  // namespace switchyard::test
