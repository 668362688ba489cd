// Every kind of GPU memory, between ranks that are threads: they share mappings, and across GPUs need access to one
// another's.
#include "gpu/throughput/memory_kinds.hpp"

namespace switchyard::test {
namespace {

class GpuMemoryKindsThreads : public GpuTest {};

Case const in_threads{.ranks = 3, .tokens = 50, .hidden = 256};

TEST_F(GpuMemoryKindsThreads, FileDescriptors) {
  run_memory_case(in_threads, "fd");
}

TEST_F(GpuMemoryKindsThreads, CudaIpc) {
  run_memory_case(in_threads, "ipc");
}

TEST_F(GpuMemoryKindsThreads, FabricHandlesOrWhyNot) {
  run_memory_case(in_threads, "fabric", [](Unsupported const& error) { check_names(error, {"fabric: rank"}); });
}

}  // namespace
}  // namespace switchyard::test
