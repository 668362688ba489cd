#include "engine/cuda/low_latency/over_nodes/result_bays.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "base/refusal.hpp"
#include "layout/slots.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/stream_fence.hpp"
#include "memory/shortage.hpp"

namespace switchyard::cuda {

ResultBays::ResultBays(int device, std::size_t bytes, int count)
    : device_(device), bytes_(bytes), count_(static_cast<std::size_t>(count)) {
  for (int bay = 0; bay < count; ++bay) bays_.push_back({.memory = allocate()});
}

// The memory goes when nothing reads it any more: freeing it waits for all work of the GPU.
ResultBays::~ResultBays() = default;

auto ResultBays::allocate() const -> std::unique_ptr<std::byte, FreeMemory> {
  CurrentDevice const current(device_);
  HarmlessToCaptures const harmless;
  void* memory = nullptr;
  auto const try_to = [&] { return cudaMalloc(&memory, std::max<std::size_t>(bytes_, 1)); };
  cudaError_t seen = try_to();
  if (seen == cudaErrorMemoryAllocation && relieve_shortage()) {
    static_cast<void>(cudaGetLastError());
    seen = try_to();
  }
  check_cuda(seen, "memory for results on the GPU");
  return std::unique_ptr<std::byte, FreeMemory>(static_cast<std::byte*>(memory));
}

// Without the lock while it waits for the GPU. Returns the number of a bay that is taken.
int ResultBays::add(bool captured) {
  std::unique_ptr<std::byte, FreeMemory> memory;
  auto const refusal = refusal_of([&] {
    require(bays_.size() < static_cast<std::size_t>(max_bays), "{} bays are the most", max_bays);
    memory = allocate();
  });
  if (refusal) throw_full(refusal->text);
  std::lock_guard const lock(mutex_);
  bays_.push_back({.memory = std::move(memory), .captured = captured, .taken = true});
  return static_cast<int>(bays_.size()) - 1;
}

void ResultBays::throw_full(std::string const& why) const {
  throw InvalidArgument(
      fmt::format("max_results: expected the result of {} dispatches ago to be released, or memory for one more, "
                  "seen it and {} older ones held in all the memory there is ({}); release results",
                  count_, bays_.size() - count_, why));
}

void ResultBays::begin_call(cudaStream_t stream) {
  auto const earlier = readers_.note_caller(reinterpret_cast<std::uintptr_t>(stream));
  if (earlier)
    make_stream_fence(device_, {&*earlier, 1})->make_stream_wait(reinterpret_cast<std::uintptr_t>(stream));
}

int ResultBays::take(cudaStream_t stream, bool captured) {
  int bay = -1;
  std::unique_ptr<StreamFence> readers;
  {
    std::lock_guard const lock(mutex_);
    auto const free = std::ranges::find_if(
        bays_, [captured](Bay const& each) { return !each.taken && each.captured == captured; });
    if (free != bays_.end()) {
      free->taken = true;
      readers = std::move(free->readers);
      bay = static_cast<int>(free - bays_.begin());
    }
  }
  if (bay < 0) bay = add(captured);
  if (readers && captured)
    readers->wait();
  else if (readers)
    readers->make_stream_wait(reinterpret_cast<std::uintptr_t>(stream));
  return bay;
}

std::byte* ResultBays::at(int bay) const {
  std::lock_guard const lock(mutex_);
  return bays_[static_cast<std::size_t>(bay)].memory.get();
}

// Where no event can be made nobody knows when it has been read, so it stays taken.
void ResultBays::give_back(int bay) noexcept {
  auto const refusal = refusal_of([&] {
    auto const streams = readers_.take(static_cast<std::size_t>(bay));
    HarmlessToCaptures const harmless;
    auto fence = streams.empty() ? nullptr : make_stream_fence(device_, streams);
    std::lock_guard const lock(mutex_);
    Bay& back = bays_[static_cast<std::size_t>(bay)];
    back.readers = std::move(fence);
    back.taken = false;
  });
  if (refusal) logger().error("a result that streams read: {}", refusal->text);
}

bool ResultBays::note(std::byte const* at, std::uintptr_t stream) noexcept {
  bool found = false;
  auto const refusal = refusal_of([&] {
    std::unique_lock lock(mutex_);
    auto const bay = std::ranges::find_if(
        bays_, [&](Bay const& each) { return at >= each.memory.get() && at < each.memory.get() + bytes_; });
    found = bay != bays_.end();
    auto const number = static_cast<std::size_t>(bay - bays_.begin());
    lock.unlock();
    if (found) readers_.note(number, stream);
  });
  if (refusal) logger().error("noting that a stream reads a tensor: {}", refusal->text);
  return found;
}

}  // namespace switchyard::cuda
