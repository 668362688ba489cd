#include "call/bays.hpp"

#include <algorithm>
#include <numeric>

#include "base/check.hpp"

namespace switchyard {

namespace {

std::size_t index(int bay) noexcept {
  return static_cast<std::size_t>(bay);
}

}  // namespace

Bays::Bays(std::shared_ptr<SymmetricHeap> heap, SlotLayoutBytes const& at, int frames)
    : heap_(std::move(heap)), at_(at), of_frame_(index(frames)), count_(frames) {
  std::iota(of_frame_.begin(), of_frame_.end(), 0);
}

int Bays::of(int frame) const {
  std::lock_guard const lock(mutex_);
  return of_frame_[index(frame)];
}

BayStay Bays::begin(int frame) {
  std::lock_guard const lock(mutex_);
  int const bay = of_frame_[index(frame)];
  stays_[index(bay)] = ++numbers_;
  return {.bay = bay, .number = numbers_};
}

void Bays::move(int frame) {
  int const next = take();
  std::lock_guard const lock(mutex_);
  require(
      next >= 0,
      "max_results: expected the result of {} dispatches ago to be released, or memory for one more, seen it and "
      "{} older ones held in all the memory there is; release results",
      of_frame_.size(), count_held());
  of_frame_[index(frame)] = next;
}

bool Bays::is_of_a_frame(int bay) const {
  return std::ranges::find(of_frame_, bay) != of_frame_.end();
}

int Bays::count_held() const {
  int held = 0;
  for (int bay = 0; bay < count_; ++bay) held += stays_[index(bay)] != 0 && !is_of_a_frame(bay) ? 1 : 0;
  return held;
}

// A bay that nobody has, or -1. The lowest one, so that memory that was used before is used again.
int Bays::take() {
  int count = 0;
  {
    std::lock_guard const lock(mutex_);
    for (int bay = 0; bay < count_; ++bay) {
      if (stays_[index(bay)] == 0 && !is_of_a_frame(bay)) return bay;
    }
    count = count_;
  }
  // Without the lock: growth may take long, and may run code of others, which releases results.
  if (count == max_bays || !heap_->grow_to(at_.bay(count + 1))) return -1;
  std::lock_guard const lock(mutex_);
  count_ = count + 1;
  return count;
}

void Bays::release(BayStay const& stay) noexcept {
  std::lock_guard const lock(mutex_);
  if (stays_[index(stay.bay)] == stay.number) stays_[index(stay.bay)] = 0;
}

bool Bays::is_over(int frame) const {
  std::lock_guard const lock(mutex_);
  return stays_[index(of_frame_[index(frame)])] == 0;
}

void Bays::forget() {
  std::lock_guard const lock(mutex_);
  stays_.fill(0);
}

int most_bays(SymmetricHeap const& heap, SlotLayoutBytes const& at, int rank) noexcept {
  std::size_t const most = (heap.heap_capacity(rank) - at.bays) / at.bay_bytes;
  return static_cast<int>(std::min<std::size_t>(most, max_bays));
}

void check_may_move(HeldResult const& held) {
  require(
      held.received,
      "max_results: expected all receive halves of the dispatch of {} dispatches ago, and of its combines, to be "
      "done, seen one that is not; call its hook, or release the result",
      held.frames);
  require(!held.captured,
          "max_results: expected the result of {} dispatches ago to be released, since its place is part of a CUDA "
          "graph, seen it held; release results earlier or raise LowLatencyOptions::max_results",
          held.frames);
}

}  // namespace switchyard
