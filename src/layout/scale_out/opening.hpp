// The letter that opens a call between nodes, from a rank to its rail peer on another node: what it was asked to
// do, or why it refuses, and in a dispatch that counts how much will come.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "layout/control.hpp"
#include "layout/scale_out/notify.hpp"

namespace switchyard::scale_out {

using TermValues = std::array<std::int64_t, num_terms>;

// Behind it: the notify message of a dispatch that counts; nothing in other calls; the reason of a refusal.
struct OpeningHeader {
  std::uint32_t magic = 0;
  std::uint32_t version = 0;
  std::uint64_t epoch = 0;
  std::uint32_t status = 0;  // 0, or an ErrorCode
  std::uint32_t bytes = 0;   // of the whole letter
  TermValues terms{};
};
static_assert(sizeof(OpeningHeader) == 24 + sizeof(TermValues));

struct Opening {
  std::uint32_t status = 0;
  TermValues terms{};
  std::string text{};              // of a refusal
  std::optional<Notify> counts{};  // none in a refusal
};

// The largest letter to a node.
std::size_t most_opening_bytes(NodeExperts const& node);

// Returns the letter's bytes. `to` has most_opening_bytes().
std::size_t write_opening(std::span<std::byte> to, std::uint64_t epoch, Opening const& opening);

// `letter` may be longer than what was written. Counts are read, and checked, only where the terms are those of
// `mine`; a reader that was asked something else has no use for them. Throws InvalidArgument, naming the source,
// unless the letter is whole and its numbers are possible.
Opening read_opening(Bytes letter, NotifyTerms const& terms, TermValues const& mine, NodeExperts const& node);

}  // namespace switchyard::scale_out
