// Gives frames back to their sources, and refuses them to masked peers. A buffer and its leases share it: leases
// may outlive the buffer, and may end on any thread.
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

  // Allows the sources to write into the frame again. Does nothing when the use has not been received, since
  // sources may still write then, nor when the frame was given back before. Any thread may call it.
  void give_back(FrameUse const& use) noexcept;
  void note_received(FrameUse const& use);

  // Masking a peer revokes all its credits; ending that gives it back those that it had.
  void mask(int peer, bool masked);
  // To be asked only by the thread that masks.
  [[nodiscard]] bool masked(int peer) const noexcept { return masked_[static_cast<std::size_t>(peer)] != 0; }

  // The two steps of a reset: the first voids what was handed out, the second forgets everything.
  void end_generation();
  void clear();
  [[nodiscard]] std::uint64_t generation() const;

 private:
  void set_credit(int peer, int frame, std::uint64_t epoch) const noexcept;

  Slots slots_;
  mutable std::mutex mutex_;
  std::uint64_t generation_ = 0;
  std::vector<char> masked_;                            // by peer
  std::array<std::uint64_t, max_frames> received_{};    // by frame, the epoch of the latest use that was received
  std::array<std::uint64_t, max_frames> given_back_{};  // by frame, the epoch of the latest use that was given back
};

}  // namespace switchyard::cpu
