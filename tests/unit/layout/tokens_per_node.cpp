// What get_layout says of nodes.
#include <gtest/gtest.h>

#include "call/hosted/host_layout.hpp"
#include "support/layout_check.hpp"

namespace switchyard::test {
namespace {

void check_all_ranks(Case const& c) {
  Problem const p = make_problem(c);
  for (int rank = 0; rank < c.ranks; ++rank) {
    RankInputs const inputs(p, rank);
    EXPECT_NO_THROW(check_layout(p, rank, host_layout(inputs.ids(), c.experts, Topology(c.nodes)))) << c;
  }
}

TEST(TokensPerNode, CountEachTokenOnceANode) {
  for (Routing const routing :
       {Routing::uniform, Routing::skewed, Routing::sparse, Routing::none, Routing::repeated}) {
    for (std::vector<int> const& nodes : {std::vector{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 2}})
      check_all_ranks({.ranks = 3, .nodes = nodes, .tokens = 40, .experts = 9, .top_k = 4, .routing = routing});
  }
}

TEST(TokensPerNode, OfNoTokens) {
  check_all_ranks({.ranks = 3, .nodes = {0, 1, 1}, .counts = Tokens::all_none});
}

}  // namespace
}  // namespace switchyard::test
