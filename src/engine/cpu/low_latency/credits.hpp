// Giving frames back to their sources, and refusing them to masked peers. Shared by a buffer and its leases, which
// may outlive it and may end on any thread.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "engine/cpu/low_latency/slots.hpp"

namespace switchyard::cpu {

// One dispatch's use of a frame.
struct FrameUse {
  int frame = 0;
  std::uint64_t epoch = 0;
  std::uint64_t generation = 0;  // resets before it
};

class Credits {
 public:
  explicit Credits(Slots slots) : slots_(std::move(slots)), masked_(static_cast<std::size_t>(slots_.num_ranks())) {}

  // Lets the sources write into the frame again. Does nothing if the use was not received: sources may still write.
  void give_back(FrameUse const& use) noexcept;
  void note_received(FrameUse const& use);

  // Masking revokes all credits of a peer; ending it gives it those back that it had.
  void mask(int peer, bool masked);
  // Only for the thread that masks.
  [[nodiscard]] bool masked(int peer) const noexcept { return masked_[static_cast<std::size_t>(peer)] != 0; }

  // The two steps of a reset: void what was handed out; then forget everything.
  void end_generation();
  void clear();
  [[nodiscard]] std::uint64_t generation() const;

 private:
  void credit(int peer, int frame, std::uint64_t epoch) const noexcept;

  Slots slots_;
  mutable std::mutex mutex_;
  std::uint64_t generation_ = 0;
  std::vector<char> masked_;
  std::array<std::uint64_t, max_frames> received_{};
  std::array<std::uint64_t, max_frames> given_{};
};

}  // namespace switchyard::cpu
