// How many slots differ from the map before.
#pragma once

#include <span>

#include "plan/experts/placement.hpp"

namespace switchyard::experts {

// The expert that each slot had, or nothing where there is no map before: then nothing counts as moved.
class Moves {
 public:
  Moves() = default;
  explicit Moves(std::span<int const> old) : old_(old) {}

  [[nodiscard]] bool counted() const noexcept { return !old_.empty(); }
  [[nodiscard]] int old(int slot) const { return old_[static_cast<std::size_t>(slot)]; }
  [[nodiscard]] int of(int slot, int expert) const { return counted() && old(slot) != expert ? 1 : 0; }

  // How many more slots differ after a change: below zero if it brings experts back.
  [[nodiscard]] int by_swap(Placement const& placement, int slot, int other) const {
    int const one = placement.expert(slot);
    int const two = placement.expert(other);
    return of(slot, two) + of(other, one) - of(slot, one) - of(other, two);
  }
  [[nodiscard]] int by_replace(Placement const& placement, int slot, int expert) const {
    return of(slot, expert) - of(slot, placement.expert(slot));
  }

 private:
  std::span<int const> old_{};
};

}  // namespace switchyard::experts
