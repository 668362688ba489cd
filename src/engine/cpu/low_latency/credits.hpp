// Gives frames back to their sources, and refuses them to masked peers. A buffer and its leases share it: leases
// may outlive the buffer, and may end on any thread.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "call/bays.hpp"
#include "engine/cpu/low_latency/slots.hpp"

namespace switchyard::cpu {

// One dispatch's use of a frame.
struct FrameUse {
  int frame = 0;
  std::uint64_t epoch = 0;
  std::uint64_t generation = 0;  // resets before it
  BayStay stay{};                // where its rows lie; known when it begins
};

class Credits {
 public:
  explicit Credits(Slots slots);

  // The result of the use is not held any more, or the frame has left it behind in its bay. Allows the sources to
  // send into the frame again, to the bay that it has now. Does nothing to the frame when the use has not been
  // received, since sources may still write then, nor when the frame was given back before. Any thread may call it.
  void give_back(FrameUse const& use) noexcept;
  void note_received(FrameUse const& use);

  // Masking a peer revokes all its credits; ending that gives it back those that it had. Over nodes the ranks that
  // are reached through it are masked along with it.
  void mask(int peer, bool masked);
  // To be asked only by the thread that masks.
  [[nodiscard]] bool masked(int peer) const noexcept { return masked_[static_cast<std::size_t>(peer)] != 0; }

  // The steps of a reset: the first voids what was handed out, the second forgets everything but which bay each
  // frame has; the third, when the words of all ranks are clear, publishes that. No source sends before its end.
  void end_generation();
  void clear();
  void publish_bays();
  [[nodiscard]] std::uint64_t generation() const;
  [[nodiscard]] Bays& bays() noexcept { return bays_; }

 private:
  void set_credit(int peer, int frame, std::uint64_t credit) const noexcept;
  void store_credit(FrameFlag& flag, std::uint64_t credit) const noexcept;
  void mask_one(int peer, bool masked);
  void mask_behind(int peer);
  void pass_on(int peer, bool masked) const noexcept;
  [[nodiscard]] bool is_way_to(int peer, int rank) const noexcept;
  [[nodiscard]] std::uint64_t& given(int frame) noexcept { return given_[static_cast<std::size_t>(frame)]; }

  Slots slots_;
  Bays bays_;
  mutable std::mutex mutex_;
  std::uint64_t generation_ = 0;
  std::vector<char> masked_;                          // by peer
  std::array<std::uint64_t, max_frames> received_{};  // by frame, the epoch of the latest use that was received
  std::array<std::uint64_t, max_frames> given_{};     // by frame, the credit that its sources have
};

}  // namespace switchyard::cpu
