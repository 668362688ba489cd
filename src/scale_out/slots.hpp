// The slots of a ring between two ranks, as each end of it keeps them. Neither end counts for the other: a slot is
// the sender's until its chunk is there, and the receiver's until its credit is. Both number the uses of a slot, so
// a credit shows which use it ends.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "transport/immediate.hpp"

namespace switchyard::scale_out {

// At the sender. Any free slot will do; the one that has been free for longest is taken, so that slots take turns,
// and with them the NICs that they stand for (wires.cpp), also where few are out at a time.
class SlotsThere {
 public:
  explicit SlotsThere(int count) : slots_(static_cast<std::size_t>(count)) {
    for (int slot = 0; slot < count; ++slot) free_.push_back(slot);
  }

  // Takes one, to be filled; none is free: nothing.
  std::optional<int> take() {
    if (free_.empty()) return std::nullopt;
    int const slot = free_.front();
    free_.pop_front();
    at(slot).state = State::taken;
    return slot;
  }
  [[nodiscard]] bool any_free() const noexcept { return !free_.empty(); }
  // False: it was not taken.
  bool send(int slot) {
    if (!has(slot) || at(slot).state != State::taken) return false;
    at(slot) = {.state = State::out, .use = at(slot).use + 1};
    ++num_out_;
    return true;
  }
  // What a credit says. False: the slot is not out, or this was another use of it.
  bool free(int slot, std::uint64_t low_bits_of_use) {
    if (!has(slot) || at(slot).state != State::out) return false;
    if (at(slot).use % transport::epoch_range != low_bits_of_use) return false;
    at(slot).state = State::free;
    free_.push_back(slot);
    --num_out_;
    return true;
  }
  [[nodiscard]] int num_out() const noexcept { return num_out_; }

 private:
  enum class State : std::uint8_t { free, taken, out };
  struct Slot {
    State state = State::free;
    std::uint64_t use = 0;
  };
  [[nodiscard]] bool has(int slot) const { return slot >= 0 && static_cast<std::size_t>(slot) < slots_.size(); }
  Slot& at(int slot) { return slots_[static_cast<std::size_t>(slot)]; }

  std::vector<Slot> slots_;
  std::deque<int> free_;
  int num_out_ = 0;
};

// At the receiver.
class SlotsHere {
 public:
  explicit SlotsHere(int count) : slots_(static_cast<std::size_t>(count)) {}

  // A chunk of this epoch has come. False: there is no such slot, or it is full.
  bool fill(int slot, std::uint64_t epoch) {
    if (!has(slot) || at(slot).state != State::empty) return false;
    at(slot) = {.state = State::waits, .epoch = epoch, .use = at(slot).use + 1};
    return true;
  }
  void hand_out(int slot) { at(slot).state = State::handed_out; }
  // Gives a slot back that was handed out; returns which use of it this was. Nothing: it was not.
  std::optional<std::uint64_t> empty(int slot) {
    if (!has(slot) || at(slot).state != State::handed_out) return std::nullopt;
    at(slot).state = State::empty;
    return at(slot).use;
  }
  [[nodiscard]] std::vector<int> full() const {
    std::vector<int> found;
    for (std::size_t slot = 0; slot < slots_.size(); ++slot)
      if (slots_[slot].state != State::empty) found.push_back(static_cast<int>(slot));
    return found;
  }
  // Those that wait for an epoch before this one, which nobody will take any more.
  [[nodiscard]] std::vector<int> left_before(std::uint64_t epoch) const {
    std::vector<int> found;
    for (std::size_t slot = 0; slot < slots_.size(); ++slot)
      if (slots_[slot].state == State::waits && slots_[slot].epoch < epoch) found.push_back(static_cast<int>(slot));
    return found;
  }

 private:
  enum class State : std::uint8_t { empty, waits, handed_out };
  struct Slot {
    State state = State::empty;
    std::uint64_t epoch = 0;
    std::uint64_t use = 0;
  };
  [[nodiscard]] bool has(int slot) const { return slot >= 0 && static_cast<std::size_t>(slot) < slots_.size(); }
  Slot& at(int slot) { return slots_[static_cast<std::size_t>(slot)]; }

  std::vector<Slot> slots_;
};

}  // namespace switchyard::scale_out
