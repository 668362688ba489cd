#include "cli/bench/shared_barrier.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>
#include <new>

#include "base/check.hpp"
#include "base/deadline.hpp"

namespace switchyard::cli {

namespace {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free && sizeof(std::atomic<std::uint32_t>) == 4);

// Returns when woken, when the word is not `seen` any more, or after `timeout`.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::chrono::milliseconds timeout) {
  timespec const limit{.tv_sec = timeout.count() / 1000, .tv_nsec = timeout.count() % 1000 * 1000000};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

// How long a rank stays awake.
constexpr std::chrono::milliseconds longest_yield{2};

void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

void SharedBarrier::Unmap::operator()(SharedBarrier* barrier) const noexcept {
  ::munmap(barrier, sizeof(SharedBarrier));
}

SharedBarrier::Owner SharedBarrier::create(int ranks) {
  void* const memory =
      ::mmap(nullptr, sizeof(SharedBarrier), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw_errno("mmap of the barrier of the ranks");
  return Owner(new (memory) SharedBarrier(static_cast<std::uint32_t>(ranks)));
}

std::int64_t SharedBarrier::wait(int rank, std::chrono::milliseconds timeout) {
  throw_if_abandoned();
  // Pairs with the release store below, of the round before.
  std::uint32_t const generation = generation_.load(std::memory_order_acquire);
  rounds_[static_cast<std::size_t>(rank)].store(generation + 1, std::memory_order_relaxed);  // for a text only
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == ranks_) {
    arrived_.store(0, std::memory_order_relaxed);
    std::int64_t const now = monotonic_ns();
    released_at_.store(now, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    futex_wake_all(generation_);
    return now;
  }
  if (yield_until_released(generation)) return released_at_.load(std::memory_order_relaxed);
  Deadline const deadline(timeout);
  while (generation_.load(std::memory_order_acquire) == generation) {
    throw_if_abandoned();
    if (deadline.expired()) {
      int none = -1;
      late_.compare_exchange_strong(none, missing(generation));
      futex_wake_all(generation_);
    }
    futex_wait(generation_, generation, std::min(deadline.remaining(), std::chrono::milliseconds{100}));
  }
  return released_at_.load(std::memory_order_relaxed);
}

// For a moment, which is enough when all ranks have done the same: those that are awake leave the barrier together,
// while waking up one after the other takes longer than a small call. Acquire: pairs with the release store in
// wait().
bool SharedBarrier::yield_until_released(std::uint32_t generation) const {
  std::int64_t const end = monotonic_ns() + std::chrono::nanoseconds(longest_yield).count();
  while (monotonic_ns() < end) {
    if (generation_.load(std::memory_order_acquire) != generation) return true;
    ::sched_yield();
  }
  return false;
}

void SharedBarrier::abandon(int lost) noexcept {
  int none = -1;
  lost_.compare_exchange_strong(none, lost);
  futex_wake_all(generation_);
}

int SharedBarrier::missing(std::uint32_t generation) const {
  for (std::uint32_t rank = 0; rank < ranks_; ++rank) {
    if (rounds_[rank].load(std::memory_order_relaxed) != generation + 1) return static_cast<int>(rank);
  }
  return -1;
}

void SharedBarrier::throw_if_abandoned() const {
  int const late = late_.load();
  if (late >= 0) {
    throw Timeout(fmt::format("rank {} did not come to the benchmark's barrier in time", late),
                  {.peer = late, .phase = "barrier"});
  }
  int const lost = lost_.load();
  if (lost >= 0) {
    throw PeerLost(fmt::format("rank {} ended while the benchmark ran", lost), {.rank = lost, .phase = "barrier"});
  }
}

}  // namespace switchyard::cli
