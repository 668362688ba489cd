// Throughput mode under stress: ranks that are held up at any of their signals, and calls that change from one to
// the next (support/stress_plan.hpp). Every byte is checked.
#include "support/refusal.hpp"
#include "support/stress_plan.hpp"

namespace switchyard::test {
namespace {

class CpuRank : public StressedRank {
 public:
  using StressedRank::StressedRank;

 private:
  void make(PlannedCall const& call) override {
    switch (call.kind) {
      case PlannedKind::dispatch: return keep(*call.problem, dispatch(*call.problem));
      case PlannedKind::cached: return dispatch_again(*call.problem);
      case PlannedKind::refused: return refuse(*call.problem, call.refuser);
    }
  }

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
};

// Adds the calls that it makes to `calls`.
bool stress_one_buffer(Random& random, std::atomic<int>& calls) {
  StressPlan const plan(random);
  Case const& c = plan.sizes();
  return run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    BufferOptions options = options_for(plan.one_problem());
    options.heap_bytes = std::size_t{64} << 20U;
    Buffer buffer(communicator, options);
    CpuRank(buffer).make_all(plan, calls);
  });
}

TEST(Stress, EveryByteOfManyKindsOfCalls) {
  stress_buffers(stress_one_buffer);
}

}  // namespace
}  // namespace switchyard::test
