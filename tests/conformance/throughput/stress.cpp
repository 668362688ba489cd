// Throughput mode under stress: ranks that are held up at any of their signals, and calls that change from one to
// the next (support/stress_plan.hpp). Every byte is checked.
#include <atomic>
#include <map>

#include "support/delays.hpp"
#include "support/refusal.hpp"
#include "support/stress_plan.hpp"

namespace switchyard::test {
namespace {

// Rank by rank the same calls, each rank at its own pace.
class StressedRank {
 public:
  explicit StressedRank(Buffer& buffer) : buffer_(buffer), rank_(buffer.communicator().rank()) {}

  void make(PlannedCall const& call) {
    switch (call.kind) {
      case PlannedKind::dispatch: return keep(*call.problem, dispatch(*call.problem));
      case PlannedKind::cached: return dispatch_again(*call.problem);
      case PlannedKind::refused: return refuse(*call.problem, call.refuser);
    }
  }

 private:
  Handle dispatch(Problem const& p) {
    RankInputs const inputs(p, rank_);
    Dispatched const received = buffer_.dispatch(inputs.args());
    DispatchChecker(p, rank_).check_dispatch(received);
    combine(p, received.handle);
    return received.handle;
  }

  void dispatch_again(Problem const& p) {
    auto const found = handles_.find(&p);
    if (found == handles_.end()) return keep(p, dispatch(p));
    RankInputs const inputs(p, rank_);
    Dispatched const received = buffer_.dispatch(inputs.cached_args(found->second));
    DispatchChecker(p, rank_, Travel::cached).check_dispatch(received);
    combine(p, received.handle);
  }

  void combine(Problem const& p, Handle const& handle) {
    CombineInputs const outputs(p, rank_, {});
    std::vector<std::byte> x(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype));
    outputs.write_rows(x.data());
    ConstTensorView const view{x.data(), p.the.combine_dtype, {outputs.rows(), p.the.hidden}};
    outputs.check_result(buffer_.combine(outputs.args(view, handle)));
  }

  void refuse(Problem const& p, int refuser) {
    RankInputs const inputs(p, rank_);
    DispatchArgs args = inputs.args();
    if (rank_ == refuser) args.x.shape[1] += 1;
    expect_refusal("stress", refuser, {"x"}, [&] { (void)buffer_.dispatch(args); });
  }

  void keep(Problem const& p, Handle const& handle) { handles_[&p] = handle; }

  Buffer& buffer_;
  int rank_;
  std::map<Problem const*, Handle> handles_;
};

// Adds the calls that it makes to `calls`.
bool stress_one_buffer(Random& random, std::atomic<int>& calls) {
  StressPlan const plan(random);
  Case const& c = plan.sizes();
  return run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    BufferOptions options = options_for(plan.one_problem());
    options.heap_bytes = std::size_t{64} << 20U;
    Buffer buffer(communicator, options);
    StressedRank rank(buffer);
    for (PlannedCall const& call : plan.calls()) {
      rank.make(call);
      // Relaxed: a number, which is read when the ranks have been joined.
      if (communicator.rank() == 0) calls.fetch_add(call.calls(), std::memory_order_relaxed);
    }
  });
}

TEST(Stress, EveryByteOfManyKindsOfCalls) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Delays const delays(seed | 1U, 60);
  Random random(mix(seed, 6));
  std::atomic<int> calls{0};
  for (int i = 0; i < by_scale(3, 20); ++i) {
    if (!stress_one_buffer(random, calls)) return;
  }
  // For tools/stress_faulty, which adds them up.
  RecordProperty("calls", calls.load(std::memory_order_relaxed));
}

}  // namespace
}  // namespace switchyard::test
