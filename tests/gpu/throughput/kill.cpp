// A rank process is killed while its peers' kernels wait for it: they throw PeerLost, their CUDA contexts live on,
// and they go on as a smaller job.
#include "gpu/throughput/gpu_flow.hpp"
#include "support/casualty.hpp"

namespace switchyard::test {
namespace {

constexpr int ranks = 4;

Case kill_case(int size) {
  return {.launch = Launch::processes,
          .ranks = size,
          .tokens = 200,
          .counts = Tokens::equal,
          .hidden = 1024,
          .experts = 16,
          .top_k = 4};
}

// The survivors' new job: the same program, without the victim.
void go_on(DeviceRank& device, CommunicatorOptions options, int rank, int victim) {
  options.rank = rank < victim ? rank : rank - 1;
  options.size = ranks - 1;
  Communicator communicator = Communicator::connect(options);
  Problem const p = make_problem(kill_case(ranks - 1));
  Buffer buffer(communicator, gpu_options_for(p));
  gpu_round_trip(p, buffer, device);
  communicator.barrier();
}

// These run without MPS: its documentation leaves undefined what the other clients of a GPU get when one is killed,
// and they have been seen to get the fault of the victim's kernels.
class GpuKill : public GpuProcessTest, public testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    setenv("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent", 1);
    GpuProcessTest::SetUp();
  }
};

TEST_P(GpuKill, InALoopOfDispatchAndCombine) {
  Traces const traces;
  int const victim = GetParam();
  Problem const p = make_problem(kill_case(ranks));
  Shared<Board> const board;
  CommunicatorOptions next;
  next.address = "127.0.0.1:" + std::to_string(free_port());
  next.token = "survivors";
  Processes processes(ranks, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    DeviceRank device(communicator.rank());
    Buffer buffer(communicator, gpu_options_for(p));
    gpu_round_trip(p, buffer, device);
    ++board->ready;
    if (rank == victim) gpu_call_until_failure(buffer, device, p);
    survive<PeerLost>(*board, victim, ranks - 1, [&] { gpu_call_until_failure(buffer, device, p); });
    go_on(device, next, rank, victim);
  });
  EXPECT_TRUE(wait_until([&] { return board->ready >= ranks; })) << "the ranks never got going";
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  processes.signal(victim, SIGKILL);
  EXPECT_TRUE(wait_until([&] { return board->done >= ranks - 1; }, detection_bound)) << "survivors hang";
  expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim));
  traces.expect_none();
}

// The first and the last rank. Rank 0 serves the store.
INSTANTIATE_TEST_SUITE_P(Victim, GpuKill, testing::Values(0, ranks - 1));

}  // namespace
}  // namespace switchyard::test
