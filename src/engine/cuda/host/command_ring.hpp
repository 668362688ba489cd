// The way from kernels to a thread of the host: commands in pinned memory, which any thread of any block of a GPU
// pushes (device/command_ring.cuh), and one thread of the host takes in the order of their places. Nothing here
// knows what a command says.
//
// A command is one word of 8 bytes, so that it arrives whole: 56 bits of the caller's, and above them the lap,
// which says in which round through the ring the word was written. The consumer knows by it that a word is new, and
// needs no counter of the producers'.
//
// What is shared, and whose it is: a word of the ring is its producer's from the moment that the consumer has
// counted it as taken, and the consumer's from the release store of the command on; `taken` is the consumer's
// alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "layout/control.hpp"

namespace switchyard::cuda {

inline constexpr int command_bits = 56;
inline constexpr std::uint64_t most_command = (std::uint64_t{1} << command_bits) - 1;

// Of a ring of `places` words, the lap of the command with this number, from 1 on: memory that is 0 has no command.
// Laps are counted modulo 255, and a word is never older than one lap.
constexpr std::uint64_t lap_of(std::uint64_t number, std::uint32_t places) noexcept {
  return number / places % 255 + 1;
}

// `command` is most_command at most.
constexpr std::uint64_t word_of(std::uint64_t command, std::uint64_t number, std::uint32_t places) noexcept {
  return lap_of(number, places) << command_bits | (command & most_command);
}

// What a producer needs. The words and `taken` lie in pinned memory, the other two in memory of the GPU.
struct CommandRingView {
  std::uint64_t* words;
  std::uint64_t* taken;       // by the consumer, as far as it has published
  std::uint64_t* next;        // number of the next command
  std::uint64_t* seen_taken;  // the greatest `taken` that a producer has read
  std::uint32_t places;
};

// The consumer's end. It owns no memory: `words` has `places` words, which are 0 when the ring is made.
class CommandRing {
 public:
  CommandRing(std::uint64_t* words, std::uint64_t* taken, std::uint32_t places) noexcept
      : words_(words), taken_(taken), places_(places) {}

  // The next command, if it is there.
  [[nodiscard]] std::optional<std::uint64_t> next() noexcept {
    // Acquire: pairs with the store_release() in push() on the device, so what a producer wrote before it pushed is
    // here.
    std::uint64_t const word = std::atomic_ref(words_[number_ % places_]).load(std::memory_order_acquire);
    if (word >> command_bits != lap_of(number_, places_)) return std::nullopt;
    ++number_;
    if (number_ - published_ >= places_ / 4) publish();
    return word & most_command;
  }

  // How many were taken so far.
  [[nodiscard]] std::uint64_t taken() const noexcept { return number_; }

 private:
  // Release: pairs with the load_acquire() in wait_for_place() on the device. The words up to here have been read
  // before others are written over them. It is published only now and then, because every store goes to a line that
  // the GPU reads over its bus.
  void publish() noexcept {
    published_ = number_;
    std::atomic_ref(*taken_).store(number_, std::memory_order_release);
  }

  std::uint64_t* words_;
  std::uint64_t* taken_;
  std::uint32_t places_;
  std::uint64_t number_ = 0;
  std::uint64_t published_ = 0;
};

}  // namespace switchyard::cuda
