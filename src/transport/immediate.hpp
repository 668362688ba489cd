// What engines put into the 32-bit immediate of a write: which channel and epoch it belongs to, who sent it, and
// which slot it is about. Counts and addresses come with the plan, and never travel in it: they would bound the
// size of jobs.
#pragma once

#include <cstdint>

namespace switchyard::transport {

inline constexpr int channel_bits = 3;
inline constexpr int source_bits = 11;
inline constexpr int slot_bits = 10;
inline constexpr int epoch_bits = 8;
static_assert(channel_bits + source_bits + slot_bits + epoch_bits == 32);

inline constexpr int max_channels = 1 << channel_bits;
inline constexpr int max_sources = 1 << source_bits;
inline constexpr int max_slots = 1 << slot_bits;
static_assert(max_sources >= 2048, "nodes of a job");

struct Tag {
  int channel = 0;          // kind of signal, as its user numbers them
  int source = 0;           // node, or rail index
  int slot = 0;             // of a ring; 0 where there is none
  std::uint64_t epoch = 0;  // whole at the source; of what arrives only the low bits are known: see epoch_near()
};

constexpr bool fits(Tag const& tag) noexcept {
  return tag.channel >= 0 && tag.channel < max_channels && tag.source >= 0 && tag.source < max_sources &&
         tag.slot >= 0 && tag.slot < max_slots;
}
[[noreturn]] void refuse(Tag const& tag);

// Throws InvalidArgument for a tag that does not fit. Of the epoch the low bits travel.
constexpr std::uint32_t immediate_of(Tag const& tag) {
  if (!fits(tag)) refuse(tag);
  std::uint32_t bits = static_cast<std::uint32_t>(tag.channel);
  bits = bits << source_bits | static_cast<std::uint32_t>(tag.source);
  bits = bits << slot_bits | static_cast<std::uint32_t>(tag.slot);
  return bits << epoch_bits | static_cast<std::uint32_t>(tag.epoch & ((1U << epoch_bits) - 1U));
}

// Every field is within its bounds, whatever came; the epoch has only its low bits.
constexpr Tag tag_of(std::uint32_t immediate) noexcept {
  auto const take = [&immediate](int count) {
    std::uint32_t const low = immediate & ((1U << count) - 1U);
    immediate >>= count;
    return low;
  };
  Tag tag;
  tag.epoch = take(epoch_bits);
  tag.slot = static_cast<int>(take(slot_bits));
  tag.source = static_cast<int>(take(source_bits));
  tag.channel = static_cast<int>(immediate);
  return tag;
}

// The epoch with these low bits that is nearest to `current`: from half the range before it to just below half the
// range after it. Whoever counts on that must never be further away from a peer.
inline constexpr std::uint64_t epoch_range = std::uint64_t{1} << epoch_bits;
constexpr std::uint64_t epoch_near(std::uint64_t low_bits, std::uint64_t current) noexcept {
  constexpr std::uint64_t half = epoch_range / 2;
  std::uint64_t const ahead = (low_bits - current + half) % epoch_range;  // wraps as unsigned numbers do
  return current + ahead - half;
}

static_assert(tag_of(immediate_of({.channel = max_channels - 1, .source = 2047, .slot = 5, .epoch = 3})).source ==
              2047);
static_assert(tag_of(~std::uint32_t{0}).slot == max_slots - 1 &&
              tag_of(~std::uint32_t{0}).channel == max_channels - 1);
static_assert(epoch_near(255, 256) == 255 && epoch_near(0, 255) == 256 && epoch_near(1, 300) == 257);

}  // namespace switchyard::transport
