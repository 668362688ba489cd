// Inputs that are not contiguous.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

TEST(DispatchStrides, RowsOfXMayBeApart) {
  for (DType const dtype : {DType::bf16, DType::f32, DType::f8e4m3}) {
    for (std::int64_t const hidden : {1, 7, 129}) {
      for (std::int64_t const extra : {1, 3, 64}) {
        run_case({.ranks = 2, .hidden = hidden, .dtype = dtype, .extra_stride = extra});
      }
    }
  }
  run_case({.ranks = 3, .hidden = 129, .cast = true, .layout = OutputLayout::expanded, .extra_stride = 5});
}

TEST(DispatchStrides, ScalesMayBeColumnMajor) {
  for (std::int64_t const hidden : {1, 129, 1000}) {
    run_case({.ranks = 3, .hidden = hidden, .dtype = DType::f8e4m3, .scales_by_column = true});
  }
  run_case({.ranks = 3,
            .hidden = 500,
            .dtype = DType::f8e4m3,
            .layout = OutputLayout::expanded,
            .extra_stride = 12,
            .scales_by_column = true});
}

// Every row is the same memory.
TEST(DispatchStrides, RowsOfXMayRepeat) {
  Case const c{.ranks = 2, .tokens = 5, .counts = Tokens::equal};
  Problem problem = make_problem(c);
  std::size_t const row = index(c.hidden) * size_of(c.dtype);
  for (RankInput& input : problem.inputs) {
    for (std::size_t i = row; i < input.x.size(); ++i) input.x[i] = input.x[i % row];
  }
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    DispatchArgs args = inputs.args();
    args.x.strides[0] = 0;
    DispatchChecker(problem, communicator.rank()).check_dispatch(buffer.dispatch(args));
  });
}

// An x that starts at any address of its element's alignment.
TEST(DispatchStrides, XMayStartAnywhere) {
  Case const c{.ranks = 2, .tokens = 5, .hidden = 77, .dtype = DType::f8e4m3};
  Problem const problem = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    RankInput const& input = problem.inputs[index(communicator.rank())];
    for (std::size_t shift = 0; shift < 17; ++shift) {
      std::vector<std::byte> moved(shift);
      moved.insert(moved.end(), input.x.begin(), input.x.end());
      DispatchArgs args = inputs.args();
      args.x.data = moved.data() + shift;
      DispatchChecker(problem, communicator.rank()).check_dispatch(buffer.dispatch(args));
    }
  });
}

}  // namespace
}  // namespace switchyard::test
