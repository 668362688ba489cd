// What faulty endpoints say to one another in the immediates of the endpoint below.
//
// A write of the caller travels as several writes, its parts, in any order. The parts together carry the caller's
// immediate, which no part could carry alone next to what says that it is one, and how many parts there are; when
// all of them have arrived, the receiver reports one arrival. So the bytes of a write may come in any order and
// twice, and yet are all there when it is reported, whatever the endpoint below does with the order of writes.
//
// Writes to a peer have sequence numbers modulo `window`. A number comes into use again only when the peer has
// finished all writes of its half of the window, and said so: otherwise a late part would count for a younger
// write.
#pragma once

#include <cstdint>

#include "transport/faulty/faults.hpp"

namespace switchyard::transport::faulty {

enum class PartKind : std::uint8_t {
  word0,  // carries the first of three words of the message
  word1,
  word2,
  plain,     // only counts
  finished,  // no part of a write: says to a source that all writes of a half are finished
};
inline constexpr int num_words = 3;
inline constexpr int num_part_kinds = 5;

inline constexpr int kind_bits = 3;
inline constexpr int source_bits = 11;
inline constexpr int sequence_bits = 6;
inline constexpr int word_bits = 12;
static_assert(kind_bits + source_bits + sequence_bits + word_bits == 32);
static_assert(num_part_kinds <= 1 << kind_bits && max_endpoints == 1 << source_bits);

inline constexpr int window = 1 << sequence_bits;
inline constexpr int half_window = window / 2;

struct Part {
  PartKind kind = PartKind::plain;
  int source = 0;    // number of the endpoint that sent it
  int sequence = 0;  // of `finished`: 0 or 1, which half
  std::uint32_t word = 0;
};

constexpr std::uint32_t immediate_of(Part const& part) noexcept {
  std::uint32_t bits = static_cast<std::uint32_t>(part.kind);
  bits = bits << source_bits | static_cast<std::uint32_t>(part.source);
  bits = bits << sequence_bits | static_cast<std::uint32_t>(part.sequence);
  return bits << word_bits | part.word;
}

// The kind is whatever came, also one that there is not.
constexpr Part part_of(std::uint32_t bits) noexcept {
  auto const take = [&bits](int count) {
    std::uint32_t const low = bits & ((1U << count) - 1U);
    bits >>= count;
    return low;
  };
  Part part;
  part.word = take(word_bits);
  part.sequence = static_cast<int>(take(sequence_bits));
  part.source = static_cast<int>(take(source_bits));
  part.kind = static_cast<PartKind>(bits);
  return part;
}

// What the words of a write say together.
struct Message {
  std::uint32_t immediate = 0;
  int parts = 0;
};
inline constexpr int max_parts = 16;
static_assert(2 * max_pieces <= max_parts);

constexpr std::uint32_t word_of(Message const& message, int index) noexcept {
  std::uint64_t const all = std::uint64_t{message.immediate} << 4U | static_cast<std::uint64_t>(message.parts - 1);
  return static_cast<std::uint32_t>(all >> (index * word_bits)) & ((1U << word_bits) - 1U);
}
static_assert(num_words * word_bits == 32 + 4 && max_parts == 1 << 4);

constexpr Message message_of(std::uint64_t words) noexcept {
  return {.immediate = static_cast<std::uint32_t>(words >> 4U), .parts = static_cast<int>(words & 15U) + 1};
}

}  // namespace switchyard::transport::faulty
