// Routings, flat and expanded.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

using RoutingParam = std::tuple<Routing, OutputLayout, Launch>;

class EveryRouting : public testing::TestWithParam<RoutingParam> {
 protected:
  [[nodiscard]] static Case base(int ranks) {
    Case c;
    std::tie(c.routing, c.layout, c.launch) = GetParam();
    c.ranks = ranks;
    c.tokens = 17;
    c.experts = 13;
    c.top_k = 4;
    return c;
  }
};

TEST_P(EveryRouting, ArrivesWhereItShould) {
  for (int const ranks : {1, 2, 5}) {
    if (!run_case(base(ranks))) return;
  }
}

TEST_P(EveryRouting, ArrivesInWorstCaseMode) {
  Case c = base(3);
  c.worst = true;
  run_case(c);
}

TEST_P(EveryRouting, ArrivesWhenCast) {
  Case c = base(3);
  c.cast = true;
  c.alignment = 4;
  c.zero_padding = c.expanded();
  run_case(c);
}

std::string name_of_routing(testing::TestParamInfo<RoutingParam> const& info) {
  auto const [routing, layout, launch] = info.param;
  return text(name_of(routing), layout == OutputLayout::flat ? "_flat_" : "_expanded_", name_of(launch));
}

INSTANTIATE_TEST_SUITE_P(All, EveryRouting,
                         testing::Combine(testing::Values(Routing::uniform, Routing::skewed, Routing::one_expert,
                                                          Routing::sparse, Routing::none, Routing::repeated),
                                          testing::Values(OutputLayout::flat, OutputLayout::expanded),
                                          testing::Values(Launch::threads, Launch::processes)),
                         name_of_routing);

}  // namespace
}  // namespace switchyard::test
