// Signals to peers of the node and waits for them: flags in the control blocks, a doorbell that a rank sleeps on,
// and the record by which one rank's failure ends the waits of all. Peers are local ranks; errors and records name
// ranks of the job.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/deadline.hpp"
#include "control/held_up.hpp"
#include "layout/control.hpp"
#include "memory/symmetric_heap.hpp"
#include "node/node.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

struct WaitPolicy {
  std::chrono::milliseconds timeout{0};
  std::chrono::microseconds spin{0};  // how long a wait stays awake before it sleeps
  bool yields = false;                // meanwhile it gives its core to whoever else is ready
  std::chrono::milliseconds nap{50};  // how long a sleep lasts at most: a peer that died could not ring
};

// What a rank does while it waits, and what it says then. Ranks of a job of one node need none of it.
struct Surroundings {
  // Called in every turn of a wait, which does not sleep then: other nodes cannot ring the doorbell, and what they
  // send makes progress here only. An Error that it throws ends the wait, and fails the buffer.
  std::function<void()> idle{};
  // Called in a wait when half of the time has passed, and now and then from there on: who is to blame.
  std::function<void(Member const&)> on_held_up{};
  // Of the rank that is late: what there is to say of its machine, for the end of an error's text.
  std::function<std::string(int rank)> silence_text{};
};

// What a wait is for; it goes into the error when the wait fails.
struct Awaited {
  int peer = 0;  // local rank
  std::uint64_t epoch = 0;
  char const* phase = "";
};

// Wakes the peer if it sleeps. What it is to see must have been released before.
void ring_doorbell(SymmetricHeap const& heap, int peer) noexcept;

// How a wait for a peer ended. `interrupted`: whoever made this rank's call wants it to end
// (switchyard/interrupt.hpp).
enum class WaitResult : std::uint8_t { arrived, lost, timed_out, interrupted };

// One thread at a time waits. The other functions may be called on any thread, but for reset().
class Signals {
 public:
  // Whether what is waited for is there. It must acquire what it reads.
  using Condition = std::function<bool()>;

  Signals(std::shared_ptr<SymmetricHeap> heap, std::shared_ptr<Node> node, WaitPolicy policy,
          Surroundings around = {});

  // Raises a flag at the peer. Release: whoever sees the epoch sees everything that this thread wrote before. Pairs
  // with the acquire load in wait().
  void publish(int peer, std::atomic<std::uint64_t>& flag, std::uint64_t epoch);
  // Returns when `flag` (in the own control block) has reached the epoch. Throws PeerLost, Timeout, or what a peer
  // reported; the buffer has then failed, and all peers learn of it.
  void wait(std::atomic<std::uint64_t> const& flag, Awaited const& awaited, Deadline const& deadline);
  // Waits for anything that the peer writes and then rings for. What follows when the peer is late or gone is up to
  // the caller. Throws what a peer reported, and what went wrong while this rank was idle.
  WaitResult await(int peer, Condition const& arrived, Deadline const& deadline);
  void ring(int peer) const noexcept { ring_doorbell(*heap_, peer); }
  [[nodiscard]] Deadline deadline() const { return Deadline(policy_.timeout); }
  [[nodiscard]] std::chrono::milliseconds timeout() const noexcept { return policy_.timeout; }
  // Whether ranks share cores, so that whoever keeps one keeps it from others.
  [[nodiscard]] bool cores_are_shared() const noexcept { return policy_.yields; }
  // How much longer a wait lasts that ends on a rank which waits itself: what that one finds out is to come first.
  [[nodiscard]] std::chrono::milliseconds grace() const noexcept;

  // To whoever waits for this rank, here or on other nodes: it is held up itself.
  void say_held_up(Member const& culprit) noexcept;

  // Fails the buffer because a peer is lost or late, or because of an interrupt. `seen` is the epoch that was there
  // instead.
  [[noreturn]] void fail_awaiting(WaitResult result, Awaited const& awaited, std::uint64_t seen);
  // Records the failure here and in the control block of every rank of the node, and throws it.
  [[noreturn]] void fail(Error const& error);
  // Shows the peers that this rank takes part in nothing any more. It does so before it frees what they could still
  // wait for.
  void leave() noexcept;
  [[nodiscard]] bool has_left(int peer) const noexcept;
  // Throws if the buffer has failed, here or on a peer that reported it.
  void check_usable() const;
  // Whether it has.
  [[nodiscard]] bool has_failed() const noexcept;
  // What it has failed with, as the rank says it that has found it; nothing: it has not.
  [[nodiscard]] std::optional<Error> failure() const;
  // Forgets the failure, and what peers reported. To be called only while no rank can report: between two barriers
  // of a reset.
  void reset() noexcept;

 private:
  [[nodiscard]] ControlHeader& header(int rank) const noexcept;
  [[nodiscard]] Member const& member(int local_rank) const noexcept;
  [[nodiscard]] Member const& self() const noexcept { return member(heap_->rank()); }
  [[nodiscard]] std::string name_of(int rank) const;
  [[nodiscard]] Member to_blame_for(int peer) const noexcept;
  [[nodiscard]] std::optional<Error> reported() const;
  void make_progress();
  void report(int rank, Error const& error) noexcept;
  void sleep(Condition const& arrived, Deadline const& deadline) const noexcept;
  bool spin(Condition const& arrived) const noexcept;

  std::shared_ptr<SymmetricHeap> heap_;
  std::shared_ptr<Node> node_;
  WaitPolicy policy_;
  Surroundings around_;
  // The own failure is kept here as well as in the record in shared memory: a peer that dies while it writes that
  // record must not make this rank usable again.
  std::atomic<bool> failed_{false};  // lets check_usable() do without the mutex most of the time
  mutable std::mutex failure_mutex_;
  std::optional<Error> failure_;  // the first since the last reset
};

// Copies a text into a field of fixed size: cut to fit, and always terminated.
void put_text(char* field, std::size_t bytes, std::string_view text) noexcept;
// Reads such a field. A peer wrote it, so the terminator may be missing.
std::string get_text(char const* field, std::size_t bytes);

}  // namespace switchyard
