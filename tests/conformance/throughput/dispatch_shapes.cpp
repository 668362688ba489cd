// Hidden sizes, top-k, experts that do not divide, and token counts, in every payload.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

// The payloads whose row sizes differ most.
std::vector<Case> with_payloads(Case const& base) {
  Case f32 = base;
  f32.dtype = f32.combine_dtype = DType::f32;
  Case fp8 = base;
  fp8.dtype = DType::f8e4m3;
  Case cast = base;
  cast.cast = true;
  return {base, f32, fp8, cast};
}

TEST(DispatchShapes, AnyHidden) {
  for (std::int64_t const hidden : {1, 7, 31, 100, 127, 128, 129, 1000, 7168}) {
    run_cases(with_payloads({.ranks = 3, .tokens = hidden > 1000 ? 3 : 9, .hidden = hidden}));
  }
}

TEST(DispatchShapes, AnyHiddenExpanded) {
  for (std::int64_t const hidden : {1, 7, 129, 7168}) {
    run_cases(with_payloads({.ranks = 3, .tokens = 4, .hidden = hidden, .layout = OutputLayout::expanded}));
  }
}

TEST(DispatchShapes, AnyTopK) {
  for (int const top_k : {1, 2, 3, 8, 63, 64}) {
    run_case({.ranks = 3, .hidden = 9, .experts = 70, .top_k = top_k});
    run_case({.ranks = 3, .hidden = 9, .experts = 70, .top_k = top_k, .layout = OutputLayout::expanded});
  }
}

TEST(DispatchShapes, MoreSlotsThanExperts) {
  run_case({.ranks = 3, .experts = 5, .top_k = 8});
  run_case({.ranks = 3, .experts = 5, .top_k = 64, .layout = OutputLayout::expanded});
}

TEST(DispatchShapes, ExpertsNeedNotDivide) {
  for (int const experts : {1, 2, 4, 5, 6, 9, 14}) {
    run_case({.ranks = 5, .experts = experts});
    run_case({.ranks = 5, .experts = experts, .layout = OutputLayout::expanded, .alignment = 4});
  }
}

TEST(DispatchShapes, TokenCountsDiffer) {
  for (Tokens const counts :
       {Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none}) {
    for (int const ranks : {1, 2, 5}) {
      run_case({.ranks = ranks, .counts = counts});
      run_case({.ranks = ranks, .counts = counts, .by_rank = true});
      run_case({.ranks = ranks, .counts = counts, .layout = OutputLayout::expanded, .alignment = 8});
    }
  }
}

TEST(DispatchShapes, OneToken) {
  run_case({.ranks = 8, .tokens = 1, .counts = Tokens::first_only});
  run_case({.ranks = 8, .tokens = 1, .counts = Tokens::equal, .hidden = 1, .experts = 1, .top_k = 1});
}

TEST(DispatchShapes, ManyTokens) {
  run_case({.ranks = 3, .tokens = by_scale(200, 3000), .hidden = 24, .experts = 32, .top_k = 8});
  run_case({.launch = Launch::processes,
            .ranks = 3,
            .tokens = by_scale(200, 1500),
            .hidden = 24,
            .experts = 32,
            .top_k = 8,
            .layout = OutputLayout::expanded});
}

}  // namespace
}  // namespace switchyard::test
