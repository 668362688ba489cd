// Which bay each frame of this rank has, and which bays hold results that their frames have left behind: a frame
// whose result is still held when its turn comes gets another bay. One thread makes dispatches (begin, move,
// forget); any may call the rest.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "layout/slots.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard {

// A dispatch's stay in a bay. The number tells it from all others in the same bay; 0: none.
struct BayStay {
  int bay = 0;
  std::uint64_t number = 0;
};

class Bays {
 public:
  // At first frame f has bay f.
  Bays(std::shared_ptr<SymmetricHeap> heap, SlotLayoutBytes const& at, int frames);

  [[nodiscard]] int of(int frame) const;
  // A dispatch takes the frame with its bay, in which no result is held any more.
  BayStay begin(int frame);
  // Gives the frame another bay, when the result in the present one is held. Throws InvalidArgument if there is
  // none. Until the result is released nothing comes into its bay. The caller owns a part of the result, so that it
  // is not released meanwhile.
  void move(int frame);
  // The result is not held any more. Another stay in the bay goes on.
  void release(BayStay const& stay) noexcept;
  // Whether the latest stay in the frame's bay has been released.
  [[nodiscard]] bool is_over(int frame) const;
  // A reset: all results are void. Frames keep the bays that they have, because a CUDA graph may have them.
  void forget();

 private:
  [[nodiscard]] int take();
  // The caller holds the lock. A bay that no frame has is held as long as its latest stay goes on.
  [[nodiscard]] bool is_of_a_frame(int bay) const;
  [[nodiscard]] int count_held() const;

  std::shared_ptr<SymmetricHeap> heap_;
  SlotLayoutBytes at_;
  mutable std::mutex mutex_;
  std::vector<int> of_frame_;
  std::array<std::uint64_t, max_bays> stays_{};  // by bay, the number of the latest stay; 0: it is over
  int count_;                                    // bays so far
  std::uint64_t numbers_ = 0;
};

// How many bays the heap of a rank may have by now, or get: what a credit may name.
[[nodiscard]] int most_bays(SymmetricHeap const& heap, SlotLayoutBytes const& at, int rank) noexcept;

// What a dispatch finds when its frame's turn comes and the result in it is held.
struct HeldResult {
  bool received = true;   // nothing that it was sent, and nothing of its combines, is still to be received
  bool captured = false;  // a CUDA graph has the frame and its bay
  int frames = 1;
};
// Throws InvalidArgument unless the frame may get another bay.
void check_may_move(HeldResult const& held);

}  // namespace switchyard
