#include "control/signals.hpp"

#include <fmt/core.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <ctime>

#include "base/check.hpp"
#include "base/interrupt.hpp"
#include "control/idling.hpp"
#include "control/signal_delay.hpp"

namespace switchyard {

namespace {

// The futex is not private, since the word is shared between processes.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::chrono::milliseconds timeout) noexcept {
  timespec const limit{.tv_sec = timeout.count() / 1000, .tv_nsec = timeout.count() % 1000 * 1'000'000};
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, seen, &limit, nullptr, 0);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// What the records hold is what happened; the caller also needs to know what to do.
[[noreturn]] void throw_failure(ErrorCode code, std::string const& text, ErrorFacts const& facts) {
  char const* const advice = code == ErrorCode::peer_lost
                                 ? "make a new one on the ranks that are left"
                                 : "call reset() on all ranks, or make a new one on all ranks";
  throw_error(code, fmt::format("{}; this buffer has failed: {}", text, advice), facts);
}

}  // namespace

void put_text(char* field, std::size_t bytes, std::string_view text) noexcept {
  std::size_t const length = std::min(text.size(), bytes - 1);
  std::memcpy(field, text.data(), length);
  field[length] = '\0';
}

std::string get_text(char const* field, std::size_t bytes) {
  return {field, ::strnlen(field, bytes)};
}

Signals::Signals(std::shared_ptr<SymmetricHeap> heap, std::shared_ptr<Node> node, WaitPolicy policy,
                 Surroundings around)
    : heap_(std::move(heap)), node_(std::move(node)), policy_(policy), around_(std::move(around)) {}

ControlHeader& Signals::header(int rank) const noexcept {
  return *reinterpret_cast<ControlHeader*>(heap_->control(rank));
}

Member const& Signals::member(int local_rank) const noexcept {
  return node_->members()[static_cast<std::size_t>(local_rank)];
}

// A rank of the job, which may be of another node, whose number is not known here.
std::string Signals::name_of(int rank) const {
  auto const& members = node_->members();
  auto const found = std::ranges::find(members, rank, &Member::rank);
  return found == members.end() ? fmt::format("rank {}", rank) : found->text();
}

// Over nodes a rank is mostly late because it waits for one of another node. That wait began at about the same time
// and names the rank that is to blame, so it must be the first to end.
std::chrono::milliseconds Signals::grace() const noexcept {
  if (self().node < 0) return std::chrono::milliseconds{0};
  return std::clamp(policy_.timeout / 4, std::chrono::milliseconds{200}, std::chrono::milliseconds{5000});
}

void Signals::say_held_up(Member const& culprit) noexcept {
  // Relaxed, as in to_blame_for(): the word is all there is to it.
  header(heap_->rank()).held_up.store(held_up_word(culprit), std::memory_order_relaxed);
  if (around_.on_held_up) around_.on_held_up(culprit);
}

// The peer, or whom it says that it waits for.
Member Signals::to_blame_for(int peer) const noexcept {
  auto const culprit = held_up_in(header(peer).held_up.load(std::memory_order_relaxed), policy_.timeout);
  return culprit && culprit->rank != self().rank ? *culprit : member(peer);
}

void ring_doorbell(SymmetricHeap const& heap, int peer) noexcept {
  ControlHeader& to = *reinterpret_cast<ControlHeader*>(heap.control(peer));
  // Either we see the sleeper, or the sleeper sees what was released: this fence and the one in sleep() come one
  // after the other in the single order of such fences. As long as nobody sleeps, nothing of the peer's is written.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (to.sleepers.load(std::memory_order_relaxed) == 0) return;
  to.doorbell.fetch_add(1, std::memory_order_release);  // pairs with the acquire load in sleep()
  futex_wake_all(to.doorbell);
}

void Signals::publish(int peer, std::atomic<std::uint64_t>& flag, std::uint64_t epoch) {
  delay_signal();
  flag.store(epoch, std::memory_order_release);  // pairs with the acquire load in wait()
  if (peer != heap_->rank()) ring(peer);         // this rank itself does not sleep now
  delay_signal();
}

bool Signals::spin(Condition const& arrived) const noexcept {
  auto const end = Deadline::Clock::now() + policy_.spin;
  do {
    for (int i = 0; i < (policy_.yields ? 1 : 16); ++i) {
      if (arrived()) return true;
      if (policy_.yields) {
        ::sched_yield();
      } else {
        pause();
      }
    }
  } while (Deadline::Clock::now() < end);
  return false;
}

void Signals::sleep(Condition const& arrived, Deadline const& deadline) const noexcept {
  ControlHeader& own = header(heap_->rank());
  own.sleepers.fetch_add(1, std::memory_order_relaxed);  // the fence orders it
  std::atomic_thread_fence(std::memory_order_seq_cst);   // pairs with the one in ring_doorbell()
  // Acquire: who sees that the doorbell rang sees what it rang for. Pairs with the fetch_add in ring_doorbell().
  std::uint32_t const seen = own.doorbell.load(std::memory_order_acquire);
  // Acquire: pairs with the release store in report().
  bool const awake = arrived() || own.abort.state.load(std::memory_order_acquire) == 2;
  if (!awake) futex_wait(own.doorbell, seen, std::min(deadline.remaining(), policy_.nap));
  own.sleepers.fetch_sub(1, std::memory_order_relaxed);  // a peer that reads the old value wakes us once too often
}

// The other ranks of the node wait for this one, so they are to know what stops it.
void Signals::make_progress() {
  try {
    around_.idle();
  } catch (Error const& error) {
    fail(error);
  }
}

WaitResult Signals::await(int peer, Condition const& arrived, Deadline const& deadline) {
  if (!around_.idle && spin(arrived)) return WaitResult::arrived;
  Deadline const end = deadline.later_by(grace());
  Deadline next_look(policy_.nap);
  Idling idling;
  HeldUp held_up;
  while (!arrived()) {
    check_usable();
    // The peer may have published before it went, or reported why it goes. And if this rank was held up itself,
    // what it waits for may be there.
    if (node_->is_lost(peer)) {
      if (arrived()) return WaitResult::arrived;
      check_usable();
      return WaitResult::lost;
    }
    if (end.expired()) return arrived() ? WaitResult::arrived : WaitResult::timed_out;
    if (around_.idle) {
      Member const culprit = to_blame_for(peer);
      if (held_up.is_to_be_said(culprit, deadline, policy_.timeout)) say_held_up(culprit);
      make_progress();
      if (!arrived()) idling.rest();
      if (!next_look.expired()) continue;  // turns are short, and to ask for interrupts may take a lock
      next_look = Deadline(policy_.nap);
    } else {
      sleep(arrived, end);
    }
    // What arrived along with the operating system's signal counts: the call goes on, and its caller handles the
    // signal afterwards.
    if (!arrived() && interrupted()) return WaitResult::interrupted;
  }
  return WaitResult::arrived;
}

void Signals::wait(std::atomic<std::uint64_t> const& flag, Awaited const& awaited, Deadline const& deadline) {
  auto const there = [&] {
    return flag.load(std::memory_order_acquire) >= awaited.epoch;  // pairs with the release store in publish()
  };
  if (there()) return;
  WaitResult const result = await(awaited.peer, there, deadline);
  // Relaxed: the value only goes into a text.
  if (result != WaitResult::arrived) fail_awaiting(result, awaited, flag.load(std::memory_order_relaxed));
}

void Signals::fail_awaiting(WaitResult result, Awaited const& awaited, std::uint64_t seen) {
  Member const& peer = member(awaited.peer);
  ErrorFacts facts{.rank = self().rank, .peer = peer.rank, .phase = awaited.phase};
  if (result == WaitResult::interrupted) {
    fail(SystemError(fmt::format("{}: interrupted by its caller while it waited for {} during {}", self().text(),
                                 peer.text(), awaited.phase),
                     facts));
  }
  if (result == WaitResult::lost) {
    fail(PeerLost(fmt::format("{}: {} ended or left during {}: expected epoch {}, seen {}", self().text(),
                              peer.text(), awaited.phase, awaited.epoch, seen),
                  facts));
  }
  Member const culprit = to_blame_for(awaited.peer);
  facts.peer = culprit.rank;
  std::string const behind = culprit.rank == peer.rank ? "" : fmt::format(", which waits for {},", culprit.text());
  fail(Timeout(fmt::format("{}: waited {} ms (timeout, or SWITCHYARD_TIMEOUT_MS) for {}{} during {}: expected "
                           "epoch {}, seen {}{}",
                           self().text(), policy_.timeout.count(), peer.text(), behind, awaited.phase,
                           awaited.epoch, seen, around_.silence_text ? around_.silence_text(culprit.rank) : ""),
               facts));
}

void Signals::fail(Error const& error) {
  {
    std::lock_guard const lock(failure_mutex_);
    if (!failure_) failure_ = error;
    failed_.store(true, std::memory_order_release);  // pairs with the acquire load in check_usable()
  }
  for (int rank = 0; rank < heap_->num_ranks(); ++rank) report(rank, error);
  throw_failure(error.code(), error.what(), {.rank = error.rank(), .peer = error.peer(), .phase = error.phase()});
}

// The first rank to report a failure wins the record.
void Signals::report(int rank, Error const& error) noexcept {
  AbortRecord& record = header(rank).abort;
  std::uint32_t none = 0;
  // Acquire-release: pairs with the same exchange of another reporter, and with the owner's store in reset().
  if (!record.state.compare_exchange_strong(none, 1, std::memory_order_acq_rel)) return;
  record.code = static_cast<std::uint32_t>(error.code());
  record.rank = error.rank();
  record.peer = error.peer();
  put_text(record.phase, sizeof record.phase, error.phase());
  put_text(record.text, sizeof record.text, error.what());
  // Release: pairs with the acquire loads in check_usable() and sleep().
  record.state.store(2, std::memory_order_release);
  ring(rank);
}

void Signals::leave() noexcept {
  header(heap_->rank()).left.store(1, std::memory_order_release);  // pairs with the acquire load in has_left()
}

bool Signals::has_left(int peer) const noexcept {
  return header(peer).left.load(std::memory_order_acquire) != 0;  // pairs with the release store in leave()
}

void Signals::reset() noexcept {
  {
    std::lock_guard const lock(failure_mutex_);
    failure_.reset();
    failed_.store(false, std::memory_order_release);  // pairs with the acquire load in check_usable()
  }
  // Release: pairs with the exchange of the next reporter in report(), which writes its text after our reads of the
  // old one.
  header(heap_->rank()).abort.state.store(0, std::memory_order_release);
}

bool Signals::has_failed() const noexcept {
  // As in check_usable().
  return failed_.load(std::memory_order_acquire) ||
         header(heap_->rank()).abort.state.load(std::memory_order_acquire) == 2;
}

std::optional<Error> Signals::failure() const {
  if (failed_.load(std::memory_order_acquire)) {  // pairs with the release stores in fail() and reset()
    std::lock_guard const lock(failure_mutex_);   // reset() may be clearing it
    if (failure_) return failure_;
  }
  return reported();
}

// What is in the record of this rank.
std::optional<Error> Signals::reported() const {
  AbortRecord const& record = header(heap_->rank()).abort;
  if (record.state.load(std::memory_order_acquire) != 2) return std::nullopt;  // pairs with the store in report()
  return Error(static_cast<ErrorCode>(record.code), get_text(record.text, sizeof record.text),
               {.rank = record.rank, .peer = record.peer, .phase = get_text(record.phase, sizeof record.phase)});
}

void Signals::check_usable() const {
  if (failed_.load(std::memory_order_acquire)) {  // pairs with the release stores in fail() and reset()
    std::lock_guard const lock(failure_mutex_);   // reset() may be clearing it
    if (failure_) {
      throw_failure(failure_->code(),
                    fmt::format("{}: an earlier call failed: {}", self().text(), failure_->what()),
                    {.rank = failure_->rank(), .peer = failure_->peer(), .phase = failure_->phase()});
    }
  }
  auto const error = reported();
  if (!error) return;
  std::string text = error->what();
  if (error->rank() != self().rank)
    text = fmt::format("{}: stopped because {} reported: {}", self().text(), name_of(error->rank()), text);
  throw_failure(error->code(), text, {.rank = error->rank(), .peer = error->peer(), .phase = error->phase()});
}

}  // namespace switchyard
