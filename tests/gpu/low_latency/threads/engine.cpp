// The low-latency mode on the CUDA engine, ranks as threads. What tests/conformance asks of the CPU engine is
// linked into this program (tests/CMakeLists.txt); here is what only the CUDA engine does.
#include <algorithm>

#include "gpu/low_latency/gpu_engine.hpp"
#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

GpuThreadsEngine const gpu_engine;
bool const chosen = use_slot_engine(gpu_engine);

class GpuLowLatency : public LowLatencyTest {};

constexpr int culprit = 1;

// The host does not look at ids: wrong ones count as not used, and a later call throws.
void expect_as_unused(SlotProblem const& wrong, SlotProblem const& unused) {
  run_slot_buffers(unused.the, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotInputs const inputs(wrong, rank.memory, rank.rank());
    SlotChecker const checker(unused, rank.rank());
    LowLatencyReceived received = buffer.dispatch(inputs.args());
    check_cuda(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(rank.memory.stream())), "the dispatch");
    LowLatencyReceived host = received;
    for (Tensor* const t : {&host.x, &host.counts, &host.ranges, &host.source_token}) *t = rank.memory.fetch(*t);
    checker.check_received(host);
    if (rank.rank() == culprit) {
      auto const error = expect_throw<InvalidArgument>("a later call", [&] { buffer.synchronize(); });
      check_names(error, {"topk_idx"});
    }
    received = host = {};
    slot_round_trip(unused, rank, buffer);
  });
}

TEST_F(GpuLowLatency, IdsOutOfRangeCountAsUnusedAndALaterCallThrows) {
  for (std::int64_t const id : {std::int64_t{8}, std::int64_t{-2}, std::int64_t{1} << 40U}) {
    SlotProblem wrong = make_slot_problem({.counts = Tokens::equal, .experts = 8});
    SlotProblem unused = wrong;
    wrong.base.inputs[culprit].ids[4] = id;
    unused.base.inputs[culprit].ids[4] = -1;
    expect_as_unused(wrong, unused);
  }
}

// All slots name one expert, which has room for a third of them: those come first. With few tokens, and with
// several batches of them.
TEST_F(GpuLowLatency, MoreRowsOfAnExpertThanTokensCountAsUnused) {
  for (std::int64_t const tokens : {6, 300}) {
    SlotProblem wrong = make_slot_problem({.tokens = tokens, .counts = Tokens::equal, .experts = 8});
    SlotProblem unused = wrong;
    auto& ids = wrong.base.inputs[culprit].ids;
    std::ranges::fill(ids, 5);
    unused.base.inputs[culprit].ids = ids;
    std::fill(unused.base.inputs[culprit].ids.begin() + tokens, unused.base.inputs[culprit].ids.end(), -1);
    expect_as_unused(wrong, unused);
  }
}

// Small, for compute-sanitizer (tools/gpu_round), under which kernels of several ranks do not run side by side.
TEST_F(GpuLowLatency, OneRank) {
  for (SlotLayout const layout : {SlotLayout::expert_major, SlotLayout::rank_major}) {
    for (SendCast const cast : {SendCast::none, SendCast::fp8, SendCast::fp8_ue8m0}) {
      for (std::int64_t const hidden : {133, 512}) {
        SlotCase const c{
            .ranks = 1, .tokens = 9, .hidden = hidden, .experts = 6, .top_k = 3, .cast = cast, .layout = layout};
        SlotProblem const p = make_slot_problem(c);
        run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
          for (int call = 0; call < 3; ++call) slot_round_trip(p, rank, buffer);
        });
      }
    }
  }
}

TEST_F(GpuLowLatency, AnyNumberOfSms) {
  for (SlotLayout const layout : {SlotLayout::expert_major, SlotLayout::rank_major}) {
    // With few blocks each block has tokens of several batches.
    for (std::int64_t const tokens : {60, 400}) {
      SlotProblem const p = make_slot_problem(
          {.tokens = tokens, .hidden = 512, .experts = 16, .top_k = 6, .cast = SendCast::fp8, .layout = layout});
      run_slots(p.the, [&](SlotRank& rank) {
        for (int const sms : {1, 2, 5, 16}) {
          LowLatencyOptions options = rank.options();
          options.num_sms = sms;
          LowLatencyBuffer buffer(rank.communicator, options);
          slot_round_trip(p, rank, buffer);
          rank.communicator.barrier();
        }
      });
    }
  }
}

// A hook takes the stream on which it runs. What is queued there later starts after it.
TEST_F(GpuLowLatency, HalvesOnStreamsOfTheirOwn) {
  SlotProblem const p = make_slot_problem({.tokens = 30, .hidden = 256});
  run_slot_buffers(p.the, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    cudaStream_t other = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "cudaStreamCreate");
    for (int i = 0; i < 10; ++i) {
      SlotTrip trip(p, rank, buffer);
      ReceiveHook receive;
      LowLatencyReceived received = buffer.send_dispatch(trip.dispatch_args(), receive);
      cudaEvent_t sent = nullptr;
      check_cuda(cudaEventCreateWithFlags(&sent, cudaEventDisableTiming), "cudaEventCreate");
      check_cuda(cudaEventRecord(sent, reinterpret_cast<cudaStream_t>(rank.memory.stream())), "cudaEventRecord");
      check_cuda(cudaStreamWaitEvent(other, sent, 0), "cudaStreamWaitEvent");
      receive(reinterpret_cast<std::uintptr_t>(other));
      check_cuda(cudaStreamSynchronize(other), "the receive half");
      LowLatencyReceived host = received;
      for (Tensor* const t : {&host.x, &host.counts, &host.ranges, &host.source_token}) *t = rank.memory.fetch(*t);
      SlotChecker(p, rank.rank()).check_received(host);
      check_cuda(cudaEventDestroy(sent), "cudaEventDestroy");
      received = {};
    }
    check_cuda(cudaStreamDestroy(other), "cudaStreamDestroy");
  });
}

}  // namespace
}  // namespace switchyard::test
