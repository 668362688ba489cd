// Calls over nodes on the CUDA engine when a rank is killed, or stopped: the others find out in time and name it,
// their CUDA contexts live on, and they go on.
#include "gpu/throughput/gpu_flow.hpp"
#include "support/casualty.hpp"

namespace switchyard::test {
namespace {

Case two_nodes() {
  return {.launch = Launch::processes,
          .ranks = 4,
          .nodes = {0, 0, 1, 1},
          .tokens = 200,
          .counts = Tokens::equal,
          .hidden = 1024,
          .experts = 16,
          .top_k = 4};
}

// Without MPS, as GpuKill.
class GpuNodeCasualty : public GpuProcessTest, public testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    setenv("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent", 1);
    GpuProcessTest::SetUp();
  }

  [[nodiscard]] Processes start(RankBody const& body) const {
    return {c_.ranks, body,
            [this](int rank) { setenv("SWITCHYARD_NODE", std::to_string(c_.nodes[index(rank)]).c_str(), 1); }};
  }

  // Waits until all are in their calls, and lets them get on.
  void await_calls(Board const& board) const {
    EXPECT_TRUE(wait_until([&] { return board.ready >= c_.ranks; })) << "the ranks never got going";
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }

  Case c_ = two_nodes();
  Problem p_ = make_problem(c_);
};

TEST_P(GpuNodeCasualty, Killed) {
  Traces const traces;
  int const victim = GetParam();
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    Buffer buffer(communicator, gpu_options_for(p_));
    gpu_round_trip(p_, buffer, device);
    ++board->ready;
    if (communicator.rank() == victim) gpu_call_until_failure(buffer, device, p_);
    survive<PeerLost>(*board, victim, c_.ranks - 1, [&] { gpu_call_until_failure(buffer, device, p_); });
    check_cuda(cudaDeviceSynchronize(), "the context of a survivor");
  });
  await_calls(*board);
  processes.signal(victim, SIGKILL);
  EXPECT_TRUE(wait_until([&] { return board->done >= c_.ranks - 1; }, detection_bound)) << "survivors hang";
  expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim));
  traces.expect_none();
}

TEST_P(GpuNodeCasualty, Stopped) {
  Traces const traces;
  int const victim = GetParam();
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    BufferOptions options = gpu_options_for(p_);
    options.timeout = std::chrono::milliseconds{1500};
    Buffer buffer(communicator, options);
    gpu_round_trip(p_, buffer, device);
    ++board->ready;
    if (communicator.rank() == victim) {
      (void)expect_throw<Error>("being late", [&] { gpu_call_until_failure(buffer, device, p_); });
    } else {
      survive<Timeout>(*board, victim, c_.ranks - 1, [&] { gpu_call_until_failure(buffer, device, p_); });
    }
    buffer.reset();
    gpu_round_trip(p_, buffer, device);
    communicator.barrier();
  });
  await_calls(*board);
  processes.signal(victim, SIGSTOP);
  EXPECT_TRUE(wait_until([&] { return board->done >= c_.ranks - 1; }, detection_bound)) << "survivors hang";
  processes.signal(victim, SIGCONT);
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
  traces.expect_none();
}

// Rank 0, which serves the store, and the last rank of the other node.
INSTANTIATE_TEST_SUITE_P(Victim, GpuNodeCasualty, testing::Values(0, 3));

}  // namespace
}  // namespace switchyard::test
