// How the ranks of a node agree to go on, or not to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/refusal.hpp"
#include "node/node.hpp"

namespace switchyard {

// The bytes of a value that is passed to all_gather(); valid as long as the value is.
template <typename T>
std::span<std::byte const> bytes_of(T const& value) {
  return std::as_bytes(std::span(&value, 1));
}

// Collective. The least of what the ranks say.
std::uint64_t least_of(Node& node, std::uint64_t mine);

// Collective. Every rank says whether it refuses, and why; the first refusal, by rank, is thrown on every rank.
void agree(Node& node, std::optional<Refusal> const& refusal);

}  // namespace switchyard
