// get_layout: what a rank would send, without sending it.
#include "support/layout_check.hpp"

namespace switchyard::test {
namespace {

void run_layout(Case const& c) {
  Problem const problem = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer const buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    check_layout(problem, communicator.rank(), buffer.get_layout(inputs.ids()));
    check_layout(problem, communicator.rank(), buffer.get_layout_async(inputs.ids()).get());
  });
}

TEST(GetLayout, CountsForEveryRouting) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                                Routing::none, Routing::repeated}) {
    run_layout({.ranks = 3, .tokens = 20, .experts = 8, .top_k = 4, .routing = routing});
    run_layout({.ranks = 5, .tokens = 20, .experts = 3, .top_k = 2, .routing = routing, .id_dtype = DType::i32});
  }
}

TEST(GetLayout, NoTokens) {
  run_layout({.ranks = 3, .counts = Tokens::all_none});
}

// It is no collective call: one rank may ask alone.
TEST(GetLayout, NeedsNoOtherRank) {
  Case const c{.ranks = 3};
  Problem const problem = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    RankInputs const inputs(problem, communicator.rank());
    if (communicator.rank() == 1) check_layout(problem, 1, buffer.get_layout(inputs.ids()));
    round_trip(problem, buffer);
  });
}

TEST(GetLayout, RefusesBadIds) {
  Case const c{.ranks = 1, .counts = Tokens::equal};
  Problem const problem = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer const buffer(communicator, options_for(problem));
    std::vector<std::int64_t> const ids{0, 1, 2, 8};
    auto const too_high = expect_throw<InvalidArgument>("id 8", [&] {
      (void)buffer.get_layout({ids.data(), DType::i64, {2, 2}});
    });
    check_names(too_high, {"topk_idx", "8"});
    (void)expect_throw<InvalidArgument>("3 dims", [&] {
      (void)buffer.get_layout({ids.data(), DType::i64, {1, 2, 2}});
    });
    (void)expect_throw<InvalidArgument>("f32 ids", [&] {
      (void)buffer.get_layout({ids.data(), DType::f32, {2, 2}});
    });
  });
}

}  // namespace
}  // namespace switchyard::test
