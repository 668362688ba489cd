// Telling peers and waiting for them: flags in the control blocks, a doorbell to sleep on, and the record by
// which one rank's failure ends the waits of all.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "base/deadline.hpp"
#include "layout/control.hpp"
#include "memory/symmetric_heap.hpp"
#include "node/node.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

struct WaitPolicy {
  std::chrono::milliseconds timeout{0};
  std::chrono::microseconds spin{0};
};

// What a wait is for; goes into the error when it fails.
struct Awaited {
  int peer = 0;
  std::uint64_t epoch = 0;
  char const* phase = "";
};

// Wakes the peer if it sleeps. What it is to see must be released before.
void ring_doorbell(SymmetricHeap const& heap, int peer) noexcept;

// How a wait for a peer ended. Interrupted: the caller of this rank's call wants it to end
// (switchyard/interrupt.hpp).
enum class Arrival : std::uint8_t { arrived, lost, timed_out, interrupted };

class Signals {
 public:
  // Whether the news are there; must acquire what it reads.
  using News = std::function<bool()>;

  Signals(std::shared_ptr<SymmetricHeap> heap, std::shared_ptr<Node> node, WaitPolicy policy);

  // Release: everything this thread wrote before is seen by whoever sees the epoch. Pairs with wait().
  void publish(int peer, std::atomic<std::uint64_t>& flag, std::uint64_t epoch);
  // Acquire: returns when `flag` (in the own control block) has reached the epoch. Throws PeerLost, Timeout, or
  // what a peer reported; the buffer has then failed and every peer is told.
  void wait(std::atomic<std::uint64_t> const& flag, Awaited const& awaited, Deadline const& deadline);
  // The same for anything that the peer says and then rings for; what is to be done about a peer that is late or
  // gone is left to the caller. Throws what a peer reported.
  Arrival await(int peer, News const& news, Deadline const& deadline);
  void ring(int peer) const noexcept { ring_doorbell(*heap_, peer); }
  [[nodiscard]] Deadline deadline() const { return Deadline(policy_.timeout); }

  // Fails the buffer for a peer that is lost or late, or for an interrupt; `seen` is the epoch that is there
  // instead.
  [[noreturn]] void fail_awaiting(Arrival how, Awaited const& awaited, std::uint64_t seen);
  // Records the failure here and in every peer's control block, and throws it.
  [[noreturn]] void fail(Error const& error);
  // Tells the peers that this rank takes part in nothing any more: before it frees what they could still wait for.
  void leave() noexcept;
  [[nodiscard]] bool has_left(int peer) const noexcept;
  // Throws if the buffer has failed before, here or on a peer that told us.
  void check_usable() const;
  // Forgets the failure, and what peers reported. Only while no rank can report: between two barriers of a reset.
  void reset() noexcept;

 private:
  [[nodiscard]] ControlHeader& header(int rank) const noexcept;
  void sleep(News const& news, Deadline const& deadline) const noexcept;
  bool spin(News const& news) const noexcept;

  std::shared_ptr<SymmetricHeap> heap_;
  std::shared_ptr<Node> node_;
  WaitPolicy policy_;
  // The own failure, kept beside the record in shared memory: a peer that dies while it writes that record must
  // not make this rank usable again.
  std::atomic<bool> failed_{false};  // so that check_usable() seldom takes the mutex
  mutable std::mutex failure_mutex_;
  std::optional<Error> failure_;  // the first since the last reset
};

// Copies into a fixed text field, cut to fit, always terminated.
void put_text(char* field, std::size_t bytes, std::string_view text) noexcept;
// Reads such a field; a missing terminator is not trusted.
std::string get_text(char const* field, std::size_t bytes);

}  // namespace switchyard
