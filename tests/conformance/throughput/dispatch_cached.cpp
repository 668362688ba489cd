// A dispatch along the routing of an earlier one.
#include "support/cached.hpp"

namespace switchyard::test {
namespace {

TEST(DispatchCached, Flat) {
  for (Launch const launch : {Launch::threads, Launch::processes}) {
    for (int const ranks : {1, 2, 3, 5}) run_cached({.launch = launch, .ranks = ranks});
  }
}

TEST(DispatchCached, Expanded) {
  run_cached({.ranks = 3, .layout = OutputLayout::expanded});
  run_cached({.ranks = 3, .layout = OutputLayout::expanded, .alignment = 8, .zero_padding = true});
}

TEST(DispatchCached, WithoutTopK) {
  run_cached({.ranks = 3, .by_rank = true});
}

TEST(DispatchCached, Fp8) {
  run_cached({.ranks = 3, .hidden = 300, .dtype = DType::f8e4m3});
  run_cached({.ranks = 3, .hidden = 300, .cast = true});
}

TEST(DispatchCached, NoTokens) {
  run_cached({.ranks = 3, .counts = Tokens::all_none});
  run_cached({.ranks = 3, .counts = Tokens::first_only});
}

// Along the handle of a worst-case dispatch the results have as many rows as that dispatch's.
TEST(DispatchCached, AlongAWorstCase) {
  run_cached({.ranks = 3, .worst = true});
  run_cached({.ranks = 3, .hidden = 300, .cast = true, .layout = OutputLayout::expanded, .worst = true});
}

// The handle alone keeps the routing, after its tensors and those of later dispatches are gone.
TEST(DispatchCached, HandleOutlivesItsTensors) {
  Case const c{.ranks = 3};
  Problem const problem = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem, 3));
    RankInputs const inputs(problem, communicator.rank());
    Handle const handle = buffer.dispatch(inputs.args()).handle;
    for (int i = 0; i < 5; ++i) round_trip(problem, buffer);
    cached_round_trip(problem, buffer, handle);
  });
}

}  // namespace
}  // namespace switchyard::test
