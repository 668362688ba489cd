// Worst-case mode: the output is there before the counts are known.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

Case worst(OutputLayout layout) {
  return {.ranks = 3, .tokens = 10, .experts = 7, .top_k = 3, .layout = layout, .worst = true};
}

class WorstCase : public testing::TestWithParam<OutputLayout> {};

TEST_P(WorstCase, RowsPastTheRealCountAreMarked) {
  for (Tokens const counts : {Tokens::varied, Tokens::first_only, Tokens::all_none}) {
    Case c = worst(GetParam());
    c.counts = counts;
    if (!run_case(c)) return;
  }
}

TEST_P(WorstCase, WorksForEveryPayload) {
  for (DType const dtype : {DType::f32, DType::f8e4m3}) {
    Case c = worst(GetParam());
    c.dtype = dtype;
    c.id_dtype = DType::i32;
    if (!run_case(c)) return;
  }
  Case c = worst(GetParam());
  c.cast = true;
  c.alignment = 4;
  run_case(c);
}

// The others dispatch only after rank 0 has seen its tensors.
TEST_P(WorstCase, TensorsAreKnownWithoutWaiting) {
  Case const c = worst(GetParam());
  Problem const problem = make_problem(c);
  run_ranks(Launch::processes, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    DispatchChecker const checker(problem, communicator.rank());
    if (communicator.rank() != 0) communicator.barrier();
    Pending<Dispatched> pending = buffer.dispatch_async(inputs.args());
    checker.check_shapes(pending.early());
    void const* const early = pending.early().x.data<void>();
    if (communicator.rank() == 0) communicator.barrier();
    Dispatched const received = pending.get();
    check(received.x.data<void>() == early, "the tensor moved");
    checker.check_dispatch(received);
  });
}

TEST_P(WorstCase, CombineIsQueuedBeforeTheDispatchIsDone) {
  Case const c = worst(GetParam());
  Problem const problem = make_problem(c);
  run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    CombineInputs const outputs(problem, communicator.rank(), {});
    Tensor const x = buffer.allocate(c.combine_dtype, {outputs.rows(), c.hidden});
    outputs.write_rows(x.data<void>());
    Pending<Dispatched> dispatched = buffer.dispatch_async(inputs.args());
    Pending<Combined> combined = buffer.combine_async(outputs.args(x, dispatched.early().handle));
    outputs.check_result(combined.get());
    DispatchChecker(problem, communicator.rank()).check_dispatch(dispatched.get());
  });
}

TEST_P(WorstCase, TooFewRowsIsAnErrorOnEveryRank) {
  Case const c = worst(GetParam());
  Problem const problem = make_problem(c);
  run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    DispatchArgs args = inputs.args();
    args.num_worst_tokens = 1;
    auto const error = expect_throw<InvalidArgument>("1 row", [&] { (void)buffer.dispatch(args); });
    check_names(error, {"num_worst_tokens", "1"});
    round_trip(problem, buffer);
  });
}

std::string name_of_layout(testing::TestParamInfo<OutputLayout> const& info) {
  return info.param == OutputLayout::flat ? "flat" : "expanded";
}

INSTANTIATE_TEST_SUITE_P(All, WorstCase, testing::Values(OutputLayout::flat, OutputLayout::expanded),
                         name_of_layout);

}  // namespace
}  // namespace switchyard::test
