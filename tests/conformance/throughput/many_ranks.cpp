// The most ranks that a job may have, with little data.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

TEST(ManyRanks, Threads) {
  run_case({.ranks = by_scale(24, 64), .tokens = 3, .hidden = 8, .experts = 100, .top_k = 8});
}

TEST(ManyRanks, ThreadsExpanded) {
  run_case({.ranks = by_scale(16, 64),
            .tokens = 3,
            .hidden = 8,
            .experts = 100,
            .top_k = 8,
            .layout = OutputLayout::expanded,
            .alignment = 4});
}

TEST(ManyRanks, Processes) {
  run_case({.launch = Launch::processes,
            .ranks = by_scale(16, 64),
            .tokens = 3,
            .hidden = 8,
            .experts = 70,
            .top_k = 8});
}

}  // namespace
}  // namespace switchyard::test
