#include "memory/symmetric_heap.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "base/log.hpp"
#include "base/refusal.hpp"
#include "memory/shortage.hpp"

namespace switchyard {

namespace {

// A heap grows by a fourth of itself, if that can be spared, so that it need not grow often.
constexpr std::size_t growth_divisor = 4;

constexpr std::chrono::milliseconds longest_read{2000};
constexpr std::chrono::microseconds between_looks{50};

// Looks now and then. Returns false when it takes too long: what reads a block may wait for this call.
template <typename Condition>
bool comes_true(Condition const& condition) {
  Deadline const deadline(longest_read);
  while (!condition()) {
    if (deadline.expired()) return false;
    std::this_thread::sleep_for(between_looks);
  }
  return true;
}

}  // namespace

SymmetricHeap::SymmetricHeap(std::vector<std::shared_ptr<Segment>> segments, int rank, std::size_t control_bytes,
                             HeapTools tools)
    : segments_(std::move(segments)),
      rank_(rank),
      control_bytes_(control_bytes),
      allocator_(heap_bytes(rank)),
      tools_(std::move(tools)) {}

SymmetricHeap::~SymmetricHeap() {
  static_cast<void>(refusal_of([this] {
    if (auto const stream = readers_.unnamed()) tools_.fence({&*stream, 1})->wait();
  }));
  for (Released const& each : released_) each.fence->wait();
}

std::optional<SymmetricHeap::Block> SymmetricHeap::allocate(std::size_t bytes) {
  auto offset = allocator_.allocate(bytes);
  if (!offset) {
    free_what_has_passed();
    offset = allocator_.allocate(bytes);
  }
  return offset ? std::optional(owned(*offset)) : std::nullopt;
}

// A taken range that has no owner yet.
SymmetricHeap::Block SymmetricHeap::owned(std::size_t offset) {
  std::byte* const data = heap(rank_) + offset;
  // The deleter holds the heap, so a tensor may outlive the buffer that made it.
  std::shared_ptr<void> owner(data, [heap = shared_from_this(), offset](void*) { heap->release(offset); });
  return {.offset = offset, .data = data, .owner = std::move(owner)};
}

std::optional<SymmetricHeap::Block> SymmetricHeap::split(Block const& block, std::size_t bytes) {
  return bytes > 0 && allocator_.split(block.offset, bytes) ? std::optional(owned(block.offset + bytes))
                                                            : std::nullopt;
}

std::optional<SymmetricHeap::Block> SymmetricHeap::allocate_growing(std::size_t bytes) {
  auto const size = BlockAllocator::rounded(bytes);
  for (;;) {
    if (auto block = allocate(bytes)) return block;
    if (!size) return std::nullopt;
    if (tools_.growth != nullptr) {
      std::lock_guard const lock(growing_);
      // Another thread may have let it grow meanwhile, or taken what this one has let it grow by.
      std::size_t const missing = allocator_.missing(*size);
      if (missing == 0 || grow(missing)) continue;
    }
    if (!wait_for_readers()) return std::nullopt;
  }
}

std::optional<SymmetricHeap::Block> SymmetricHeap::allocate_from_spare(std::size_t bytes) {
  if (auto block = allocate(bytes)) return block;
  if (tools_.growth == nullptr || bytes > tools_.growth->spare()) return std::nullopt;
  return allocate_growing(bytes);
}

bool SymmetricHeap::grow_to(std::size_t bytes) {
  std::lock_guard const lock(growing_);
  std::size_t const now = heap_bytes(rank_);
  return now >= bytes || (tools_.growth != nullptr && grow(bytes - now));
}

// The caller holds the lock.
bool SymmetricHeap::grow(std::size_t least) {
  std::size_t const now = heap_bytes(rank_);
  std::size_t const left = heap_capacity(rank_) - now;
  if (least > left) return false;
  std::size_t const step = std::min(left, now / growth_divisor);
  Growth seen = Growth::no_memory;
  if (step > least && step <= tools_.growth->spare()) seen = try_to_grow(step);
  if (seen == Growth::no_memory) seen = try_to_grow(least);
  if (seen == Growth::no_memory && relieve_shortage()) seen = try_to_grow(least);
  return seen == Growth::done;
}

SymmetricHeap::Growth SymmetricHeap::try_to_grow(std::size_t bytes) {
  std::size_t const now = heap_bytes(rank_);
  try {
    tools_.growth->grow(bytes);
  } catch (Error const& error) {
    logger().debug("rank {}: the symmetric heap of {} bytes cannot grow by {}: {}", rank_, now, bytes,
                   error.what());
    return error.code() == ErrorCode::out_of_memory ? Growth::no_memory : Growth::refused;
  }
  before_.push_back(now);
  allocator_.extend(heap_bytes(rank_));
  logger().debug("rank {}: the symmetric heap grew from {} to {} bytes", rank_, now, heap_bytes(rank_));
  return Growth::done;
}

std::size_t SymmetricHeap::give_back() {
  std::lock_guard const lock(growing_);
  free_what_has_passed();
  if (tools_.growth == nullptr) {
    allocator_.for_each_free(
        [this](std::size_t offset, std::size_t bytes) { segment(rank_).discard(control_bytes_ + offset, bytes); });
    return 0;
  }
  std::size_t const now = heap_bytes(rank_);
  std::size_t end = now;
  std::size_t kept = before_.size();
  for (; kept > 0 && allocator_.retract(before_[kept - 1]); --kept) end = before_[kept - 1];
  if (end == now) return 0;
  // Nobody takes the range any more. What was free there may still be read by what the caller has queued.
  if (!caller_has_read()) {
    allocator_.extend(now);
    return 0;
  }
  before_.resize(kept);
  tools_.growth->shrink(control_bytes_ + end);
  return now - heap_bytes(rank_);
}

// Waits for what the caller has queued on its one stream. Returns false when that takes too long.
bool SymmetricHeap::caller_has_read() {
  auto const stream = readers_.unnamed();
  if (!stream) return true;
  auto const fence = tools_.fence({&*stream, 1});
  return comes_true([&] { return fence->passed(); });
}

bool SymmetricHeap::note(std::byte const* at, std::uintptr_t stream) noexcept {
  auto const offset = offset_of(at, 1);
  if (!offset || !tools_.fence) return false;
  auto const block = allocator_.block_at(*offset);
  if (!block) return false;
  if (auto const refusal = refusal_of([&] { readers_.note(*block, stream); }))
    logger().error("rank {}: noting that a stream reads a tensor: {}", rank_, refusal->text);
  return true;
}

// A block that other streams read is free when they have: the host asks when it needs memory, and no stream waits.
void SymmetricHeap::release(std::size_t offset) noexcept {
  bool read = false;
  auto const refusal = refusal_of([&] {
    auto const streams = readers_.take(offset);
    if (streams.empty()) return;
    read = true;
    auto fence = tools_.fence(streams);
    std::lock_guard const lock(reading_);
    released_.push_back({offset, std::move(fence)});
  });
  if (!read) return allocator_.free(offset);
  // Nobody knows then when the block has been read, so it stays taken.
  if (refusal) logger().error("rank {}: a block of the heap that streams read: {}", rank_, refusal->text);
}

SymmetricHeap::Looked SymmetricHeap::free_what_has_passed() noexcept {
  std::lock_guard const lock(reading_);
  std::size_t const freed = std::erase_if(released_, [this](Released const& each) {
    if (!each.fence->passed()) return false;
    allocator_.free(each.offset);
    return true;
  });
  return {.freed = freed, .left = released_.size()};
}

// Waits until some block that is released is read no more. Returns false when there is none, or not in time.
bool SymmetricHeap::wait_for_readers() {
  Looked looked{};
  static_cast<void>(comes_true([&] {
    looked = free_what_has_passed();
    return looked.freed > 0 || looked.left == 0;
  }));
  return looked.freed > 0;
}

std::optional<std::size_t> SymmetricHeap::offset_of(void const* data, std::size_t bytes) const noexcept {
  auto const at = reinterpret_cast<std::uintptr_t>(data);
  auto const base = reinterpret_cast<std::uintptr_t>(heap(rank_));
  std::size_t const size = heap_bytes(rank_);
  if (at < base || at - base > size || bytes > size - (at - base)) return std::nullopt;
  return at - base;
}

}  // namespace switchyard
