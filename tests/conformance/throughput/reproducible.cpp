// Bitwise the same for any number of workers, run after run. Each result is compared with the reference, so
// they are compared with one another too; the fixed values below also pin the order of the sum.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

TEST(Reproducible, ForAnyNumberOfWorkers) {
  for (int const workers : {1, 2, 3, 7}) {
    for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
      run_case({.ranks = 3,
                .tokens = by_scale(40, 300),
                .hidden = 257,
                .experts = 12,
                .top_k = 6,
                .cast = true,
                .layout = layout,
                .workers = workers});
    }
  }
}

TEST(Reproducible, WhenACallChoosesItsWorkers) {
  Case const c{.ranks = 3, .tokens = 50, .hidden = 65, .top_k = 4, .workers = 2};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, communicator.rank());
    CombineInputs const outputs(p, communicator.rank(), {.biases = 1});
    Tensor const x = buffer.allocate(c.combine_dtype, {outputs.rows(), c.hidden});
    outputs.write_rows(x.data<void>());
    for (int const workers : {1, 3, 2, 5}) {
      DispatchArgs dispatch = inputs.args();
      dispatch.num_workers = workers;
      Dispatched const received = buffer.dispatch(dispatch);
      DispatchChecker(p, communicator.rank()).check_dispatch(received);
      CombineArgs combine = outputs.args(x, received.handle);
      combine.num_workers = workers;
      outputs.check_result(buffer.combine(combine));
    }
  });
}

TEST(Reproducible, RunAfterRun) {
  Case const c{.launch = Launch::processes, .ranks = 5, .tokens = 30, .hidden = 100, .top_k = 8, .workers = 2};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    for (int i = 0; i < by_scale(5, 20); ++i) round_trip(p, buffer, {.biases = 2, .row_weights = true});
  });
}

// 1 + 2^-24 + 2^-24 in f32: 1 when summed from the left, more from the right.
TEST(Reproducible, SumsInRankOrder) {
  Case const c{.ranks = 3,
               .tokens = 1,
               .counts = Tokens::equal,
               .hidden = 3,
               .experts = 3,
               .top_k = 3,
               .combine_dtype = DType::f32};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, communicator.rank());
    Dispatched const received = buffer.dispatch(inputs.args());
    float const value = communicator.rank() == 0 ? 1.0F : 0x1p-24F;
    std::vector<float> const x(index(received.x.view().numel()), value);
    Tensor const sum = buffer.combine({x.data(), DType::f32, {received.x.size(0), c.hidden}}, received.handle);
    for (int h = 0; h < 3; ++h) check_equal(sum.data<float>()[h], 1.0F, "sum[", h, "]");
  });
}

}  // namespace
}  // namespace switchyard::test
