// How ranks agree to go on, or not to, and how they exchange values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "node/rank_group.hpp"

namespace switchyard {

// The bytes of a value; valid as long as the value is.
template <typename T>
std::span<std::byte const> bytes_of(T const& value) {
  return std::as_bytes(std::span(&value, 1));
}

// Collective. The least of what the ranks pass.
std::uint64_t least_of(RankGroup& ranks, std::uint64_t mine);

// Collective. Every rank says whether it refuses, and why. The first refusal, by rank, is thrown on every rank.
void agree(RankGroup& ranks, std::optional<Refusal> const& refusal);

// Collective: the values of all ranks, by rank, with `mine` for those that are absent. `name` says in the error
// what a rank sent in another size.
template <typename T>
std::vector<T> gather(RankGroup& ranks, std::string_view name, T const& mine) {
  static_assert(std::is_trivially_copyable_v<T>, "the bytes of a value are sent as they lie");
  std::vector<T> all;
  for (auto const& bytes : ranks.all_gather(bytes_of(mine))) {
    if (bytes.empty() && ranks.is_absent(static_cast<int>(all.size()))) {
      all.push_back(mine);
      continue;
    }
    require(bytes.size() == sizeof(T), "rank {}: {}: expected {} bytes, seen {}", all.size(), name, sizeof(T),
            bytes.size());
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof(T));
  }
  return all;
}

}  // namespace switchyard
