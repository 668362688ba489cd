// Bad input in low-latency mode: the rank that made the mistake gets the error before anything is sent; its peers
// wait for the corrected call.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/low_latency_trip.hpp"
#include "support/spoiled.hpp"

namespace switchyard::test {

inline constexpr int slot_culprit = 1;

inline SlotCase slot_refusal_case(SlotLayout layout = SlotLayout::expert_major) {
  return {
      .ranks = 3, .tokens = 6, .counts = Tokens::equal, .hidden = 20, .experts = 8, .top_k = 2, .layout = layout};
}

template <typename Action>
void expect_slot_refusal(std::string const& what, std::vector<std::string_view> const& words, Action&& action) {
  auto const error = expect_throw<InvalidArgument>(what, action);
  for (std::string_view const word : words) {
    check(std::string_view(error.what()).find(word) != std::string_view::npos, what, ": the text does not name '",
          word, "': ", error.what());
  }
}

// All calls fail on the culprit; then a good round trip on all.
template <typename Args, typename Call>
void refuse_on_culprit(std::vector<BadCall<Args>> const& bad_calls, SlotRank& rank, Args const& good,
                       Call const& call) {
  for (BadCall<Args> const& bad : bad_calls) {
    if (rank.rank() != slot_culprit) break;
    Args args = good;
    bad.spoil(args);
    expect_slot_refusal(bad.what, bad.words, [&] { call(args); });
  }
}

}  // namespace switchyard::test
