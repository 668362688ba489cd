// Messages that somebody has spoiled, each in memory of exactly its size, so that AddressSanitizer sees every byte
// that is read past its end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>

#include "support/random.hpp"

namespace switchyard::test {

// visit(bytes) for a copy of the first 0, 1, ... bytes; without the whole.
template <typename Visit>
void for_each_truncation(std::span<std::byte const> message, Visit const& visit) {
  for (std::size_t size = 0; size < message.size(); ++size) {
    auto const copy = std::make_unique<std::byte[]>(size);
    std::ranges::copy(message.first(size), copy.get());
    visit(std::span<std::byte const>(copy.get(), size));
  }
}

// visit(bytes) for a copy in which 1 to 4 bits are flipped, half of the time among the first bytes, where headers
// are.
template <typename Visit>
void with_flipped_bits(std::span<std::byte const> message, Random& random, Visit const& visit) {
  auto const copy = std::make_unique<std::byte[]>(message.size());
  std::ranges::copy(message, copy.get());
  for (int flips = random.between(1, 4); flips > 0; --flips) {
    std::size_t const end = random.chance(50) ? message.size() : std::min<std::size_t>(message.size(), 128);
    auto const at = static_cast<std::size_t>(random.below(static_cast<std::int64_t>(end)));
    copy[at] ^= std::byte{1} << random.below(8);
  }
  visit(std::span<std::byte const>(copy.get(), message.size()));
}

}  // namespace switchyard::test
