// Every kind of GPU memory, between ranks that are processes, each on a GPU of its own as far as there are enough.
// A suite of its own: a process that has used CUDA must not fork.
#include "gpu/throughput/memory_kinds.hpp"

#include "job/job.hpp"
#include "memory/device/device_segment.hpp"

namespace switchyard::test {
namespace {

class GpuMemoryKinds : public GpuProcessTest {};

Case const in_processes{.launch = Launch::processes, .ranks = 3, .tokens = 50, .hidden = 256};

TEST_F(GpuMemoryKinds, Automatic) {
  run_memory_case(in_processes, "auto");
}

TEST_F(GpuMemoryKinds, FileDescriptors) {
  run_memory_case(in_processes, "fd");
}

TEST_F(GpuMemoryKinds, CudaIpc) {
  run_memory_case(in_processes, "ipc");
}

// Few machines can; those that cannot must say so, on every rank.
TEST_F(GpuMemoryKinds, FabricHandlesOrWhyNot) {
  run_memory_case(in_processes, "fabric", [](Unsupported const& error) { check_names(error, {"fabric: rank"}); });
}

// Ranks that are set differently: one that is forced decides for all; two that contradict each other are an error.
TEST_F(GpuMemoryKinds, ForcedOnSomeRanks) {
  Problem const p = make_problem(in_processes);
  auto const force = [&](std::vector<char const*> const& kinds, RankBody const& body) {
    report(Processes(3, body, [&](int rank) { setenv("SWITCHYARD_GPU_MEMORY", kinds[index(rank)], 1); }).wait(),
           in_processes);
  };
  force({"auto", "ipc", "auto"}, [&](Communicator& communicator) { memory_round_trip(p, communicator); });
  force({"fd", "ipc", "auto"}, [&](Communicator& communicator) {
    auto const error = expect_throw<Unsupported>("two kinds", [&] { memory_round_trip(p, communicator); });
    check_names(error, {"fd: rank 1: SWITCHYARD_GPU_MEMORY=ipc", "ipc: rank 0: SWITCHYARD_GPU_MEMORY=fd"});
    communicator.barrier();
  });
}

// A peer that claims more memory than it handed over.
TEST_F(GpuMemoryKinds, AClaimTooLarge) {
  for (GpuMemoryKind const kind : {GpuMemoryKind::fd, GpuMemoryKind::ipc}) {
    run_ranks(Launch::processes, 2, name_of(kind), [&](Communicator& communicator) {
      Node& node = *communicator.job()->node();
      auto const own = DeviceSegment::create(kind, 0, {.bytes = std::size_t{64} << 20U});
      SharedGpuMemory shared = own->shared();
      auto const all = node.all_gather(shared.handle);
      auto const fds = kind == GpuMemoryKind::fd ? node.exchange_fd(shared.fd) : std::vector<UniqueFd>(2);
      auto const peer = index(1 - communicator.rank());
      std::copy(all[peer].begin(), all[peer].end(), shared.handle.begin());
      shared.fd = fds[peer].get();
      check_equal(DeviceSegment::attach(0, shared)->bytes(), own->bytes(), "the true size");
      for (std::size_t const bytes : {std::size_t{0}, 2 * own->bytes()}) {
        shared.bytes = bytes;
        Outcome const outcome = capture([&] { (void)DeviceSegment::attach(0, shared); });
        check(!outcome.ok, "mapped ", bytes, " bytes of ", own->bytes());
      }
      check_cuda(cudaDeviceSynchronize(), "the context lives");
      communicator.barrier();
    });
  }
}

}  // namespace
}  // namespace switchyard::test
