// Combine: dtypes, weights, biases, and where rows come from and go to.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

using CombineParam = std::tuple<DType, OutputLayout, Launch>;

class CombineValues : public testing::TestWithParam<CombineParam> {
 protected:
  [[nodiscard]] static Case base() {
    Case c;
    std::tie(c.combine_dtype, c.layout, c.launch) = GetParam();
    c.ranks = 5;
    c.tokens = 9;
    c.hidden = 133;
    c.experts = 16;
    c.top_k = 4;
    c.alignment = c.expanded() ? 4 : 1;
    return c;
  }

  static void run(CombineExtras const& extras, Case const& c = base()) {
    Problem const problem = make_problem(c);
    run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
      Buffer buffer(communicator, options_for(problem));
      round_trip(problem, buffer, extras);
    });
  }
};

TEST_P(CombineValues, Plain) {
  run({});
}

TEST_P(CombineValues, RowWeights) {
  run({.row_weights = true});
}

TEST_P(CombineValues, OneBiasAndTwo) {
  run({.biases = 1});
  run({.biases = 2});
}

TEST_P(CombineValues, Everything) {
  run({.biases = 2, .row_weights = true, .topk_weights = true});
}

// Also where the routes know no slots.
TEST_P(CombineValues, WeightsOfAllRanks) {
  Case c = base();
  c.layout = OutputLayout::flat;
  c.alignment = 1;
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::sparse}) {
    c.routing = routing;
    run({.topk_weights = true, .weights_of_all_ranks = true}, c);
  }
  c.by_rank = true;
  run({.biases = 1, .topk_weights = true, .weights_of_all_ranks = true}, c);
}

TEST_P(CombineValues, BiasAloneWhereNothingWasSent) {
  Case c = base();
  c.routing = Routing::sparse;
  run({.biases = 2, .topk_weights = true}, c);
  c.routing = Routing::none;
  run({.biases = 1, .topk_weights = true}, c);
}

TEST_P(CombineValues, FromAnyPointerIntoAnyPointer) {
  Case const c = base();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, rank);
    Handle const handle = buffer.dispatch(inputs.args()).handle;
    CombineExtras const extras{.biases = 1, .topk_weights = true};
    CombineInputs const outputs(p, rank, extras);
    std::size_t const row = index(c.hidden) * size_of(c.combine_dtype);
    std::vector<std::byte> x(index(outputs.rows()) * row);
    std::vector<std::byte> out(index(p.inputs[index(rank)].tokens) * row);
    outputs.write_rows(x.data());
    CombineArgs args = outputs.args({x.data(), c.combine_dtype, {outputs.rows(), c.hidden}}, handle);
    args.out = {out.data(), c.combine_dtype, {p.inputs[index(rank)].tokens, c.hidden}};
    Combined const combined = buffer.combine(args);
    check(!combined.x.given(), "a tensor was returned although the caller gave one");
    outputs.check_sums(out.data());
    outputs.check_weights(combined);
  });
}

// The tensor that dispatch returned is overwritten by the expert and read in place.
TEST_P(CombineValues, InPlaceOfTheReceivedRows) {
  Case c = base();
  c.dtype = c.combine_dtype;
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, communicator.rank());
    Dispatched const received = buffer.dispatch(inputs.args());
    CombineInputs const outputs(p, communicator.rank(), {});
    outputs.write_rows(received.x.data<void>());
    std::size_t const before = buffer.heap_bytes_used();
    Combined const combined = buffer.combine(outputs.args(received.x, received.handle));
    std::size_t const out = index(combined.x.view().numel()) * size_of(c.combine_dtype);
    check(buffer.heap_bytes_used() <= before + out + 8192, "staged a tensor that lies in the heap");
    outputs.check_result(combined);
  });
}

std::string name_of_combine(testing::TestParamInfo<CombineParam> const& info) {
  auto const [dtype, layout, launch] = info.param;
  return text(name_of(dtype), layout == OutputLayout::flat ? "_flat_" : "_expanded_", name_of(launch));
}

INSTANTIATE_TEST_SUITE_P(All, CombineValues,
                         testing::Combine(testing::Values(DType::bf16, DType::f16, DType::f32),
                                          testing::Values(OutputLayout::flat, OutputLayout::expanded),
                                          testing::Values(Launch::threads, Launch::processes)),
                         name_of_combine);

}  // namespace
}  // namespace switchyard::test
