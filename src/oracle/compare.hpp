// Comparing what arrived with what must have, value by value.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

namespace switchyard::cli {

using Mismatch = std::optional<std::string>;

// Where a value differs. `channel` is an index within the row, -1 when the row has but one value.
struct Place {
  char const* what;
  int rank;
  std::size_t row;
  std::int64_t channel;
  std::uint64_t seed;
};

template <typename T>
Mismatch mismatch(Place const& place, T const& expected, T const& seen) {
  return fmt::format("{} on rank {}, row {}, channel {}: expected {}, seen {} (seed {})", place.what, place.rank,
                     place.row, place.channel, expected, seen, place.seed);
}

// Bitwise, so that NaN equals itself and -0 differs from +0.
template <typename T>
Mismatch compare(Place place, std::span<T const> expected, T const* seen) {
  if (std::memcmp(expected.data(), seen, expected.size_bytes()) == 0) return std::nullopt;
  std::size_t i = 0;
  while (std::memcmp(&expected[i], &seen[i], sizeof(T)) == 0) ++i;
  place.channel = static_cast<std::int64_t>(i);
  return mismatch(place, expected[i], seen[i]);
}

// The bytes of a row; `width` bytes make an element.
inline Mismatch compare_row(Place place, std::span<std::byte const> expected, std::byte const* seen,
                            std::size_t width) {
  auto const [at, other] = std::mismatch(expected.begin(), expected.end(), seen);
  if (at == expected.end()) return std::nullopt;
  auto const element = static_cast<std::size_t>(at - expected.begin()) / width;
  place.channel = static_cast<std::int64_t>(element);
  auto const hex = [&](std::byte const* data) {
    std::uint64_t value = 0;
    std::memcpy(&value, data + element * width, width);
    return fmt::format("{:#0{}x}", value, 2 + 2 * width);
  };
  return mismatch(place, hex(expected.data()), hex(seen));
}

}  // namespace switchyard::cli
