// Who is to blame for a wait is mostly not the rank that is waited for, which waits itself. So ranks that have
// waited long say for whom, and again, since what was said a while ago says nothing any more.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/deadline.hpp"
#include "node/member.hpp"

namespace switchyard {

// How old what somebody said may be to count. A rank that is silent by itself has said nothing for the whole time
// of the wait that ends on it.
[[nodiscard]] constexpr std::chrono::milliseconds held_up_counts_for(std::chrono::milliseconds timeout) noexcept {
  return timeout / 2;
}

// When a wait has to say whom it is for.
class HeldUp {
 public:
  // True when half of the time has passed, then whenever the culprit is another, and otherwise at times.
  [[nodiscard]] bool is_to_be_said(Member const& culprit, Deadline const& deadline,
                                   std::chrono::milliseconds timeout) {
    if (deadline.remaining() > timeout / 2) return false;
    if (said_ == culprit.rank && !again_.expired()) return false;
    said_ = culprit.rank;
    again_ = Deadline(timeout / 8);
    return true;
  }

 private:
  int said_ = -1;
  Deadline again_{std::chrono::milliseconds{0}};
};

// As it lies in a control block: a time in ms, a node and a rank, of 16 bits each, the rank counted from 1.
inline constexpr int held_up_bits = 16;
[[nodiscard]] inline std::uint64_t held_up_word(Member const& culprit) noexcept {
  constexpr std::uint64_t mask = (std::uint64_t{1} << held_up_bits) - 1;
  auto const now = static_cast<std::uint64_t>(monotonic_ns() / 1'000'000);
  return now << (2 * held_up_bits) | (static_cast<std::uint64_t>(culprit.node) & mask) << held_up_bits |
         (static_cast<std::uint64_t>(culprit.rank + 1) & mask);
}
// Nobody where nobody was named, or that was too long ago.
[[nodiscard]] inline std::optional<Member> held_up_in(std::uint64_t word,
                                                      std::chrono::milliseconds timeout) noexcept {
  constexpr std::uint64_t mask = (std::uint64_t{1} << held_up_bits) - 1;
  if (word == 0) return std::nullopt;
  auto const now = static_cast<std::uint32_t>(monotonic_ns() / 1'000'000);
  std::uint32_t const age = now - static_cast<std::uint32_t>(word >> (2 * held_up_bits));  // the time may wrap
  if (age > static_cast<std::uint64_t>(held_up_counts_for(timeout).count())) return std::nullopt;
  return Member{.rank = static_cast<int>(word & mask) - 1, .node = static_cast<int>(word >> held_up_bits & mask)};
}

}  // namespace switchyard
