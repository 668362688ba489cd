#include "engine/cuda/low_latency/read_bays.hpp"

#include <algorithm>
#include <iterator>

#include "base/log.hpp"
#include "base/refusal.hpp"
#include "memory/device/stream_fence.hpp"

namespace switchyard::cuda {

ReadBays::ReadBays(std::shared_ptr<SymmetricHeap> heap, SlotLayoutBytes const& at, int device)
    : heap_(std::move(heap)), at_(at), device_(device) {}

// The memory goes when nothing reads it any more.
ReadBays::~ReadBays() {
  static_cast<void>(refusal_of([this] {
    if (auto const stream = readers_.unnamed()) make_stream_fence(device_, {&*stream, 1})->wait();
  }));
  for (Leaving const& each : leaving_) each.fence->wait();
}

bool ReadBays::note(std::byte const* at, std::uintptr_t stream) noexcept {
  auto const offset = heap_->offset_of(at, 1);
  if (!offset) return false;
  if (*offset < at_.bays) return true;
  if (auto const refusal = refusal_of([&] { readers_.note((*offset - at_.bays) / at_.bay_bytes, stream); }))
    logger().error("rank {}: noting that a stream reads a tensor: {}", heap_->rank(), refusal->text);
  return true;
}

void ReadBays::defer(int frame, std::span<std::uintptr_t const> readers, std::function<void()> give_back) {
  auto const refusal = refusal_of([&] {
    auto fence = make_stream_fence(device_, readers);
    std::lock_guard const lock(mutex_);
    leaving_.push_back({frame, std::move(fence), give_back});
  });
  if (!refusal) return;
  // Nobody knows then when it has been read, so its frame is not given back.
  logger().error("rank {}: a result that streams read: {}", heap_->rank(), refusal->text);
}

template <typename Which>
std::vector<ReadBays::Leaving> ReadBays::extract(Which const& which) {
  std::vector<Leaving> found;
  std::lock_guard const lock(mutex_);
  auto const first =
      std::stable_partition(leaving_.begin(), leaving_.end(), [&](Leaving const& each) { return !which(each); });
  std::move(first, leaving_.end(), std::back_inserter(found));
  leaving_.erase(first, leaving_.end());
  return found;
}

void ReadBays::flush() {
  for (Leaving const& each : extract([](Leaving const&) { return true; })) {
    each.fence->wait();
    each.give_back();
  }
}

void ReadBays::begin_call(cudaStream_t stream, bool captured) {
  if (captured) return flush();
  auto const earlier = readers_.note_caller(reinterpret_cast<std::uintptr_t>(stream));
  if (earlier)
    make_stream_fence(device_, {&*earlier, 1})->make_stream_wait(reinterpret_cast<std::uintptr_t>(stream));
  for (Leaving const& each : extract([](Leaving const& leaving) { return leaving.fence->passed(); }))
    each.give_back();
}

void ReadBays::take(int frame, cudaStream_t stream) {
  for (Leaving const& each : extract([frame](Leaving const& leaving) { return leaving.frame == frame; })) {
    each.fence->make_stream_wait(reinterpret_cast<std::uintptr_t>(stream));
    each.give_back();
  }
}

}  // namespace switchyard::cuda
