// Waits for the flags of all peers, and what becomes of peers that are late.
#include <utility>

#include "control/signal_delay.hpp"
#include "engine/cpu/low_latency/engine.hpp"

namespace switchyard::cpu {

namespace {

// The peers whose flags a wait still misses, and the time since it began.
class MissingPeers {
 public:
  MissingPeers(Slots const& slots, Credits& credits, FlagWait const& wait)
      : slots_(slots), credits_(credits), wait_(wait), begin_ns_(monotonic_ns()) {
    for (int peer = 0; peer < slots.num_ranks(); ++peer) {
      if (!credits.masked(peer)) peers_.push_back(peer);
    }
  }

  [[nodiscard]] std::vector<int> const& peers() const noexcept { return peers_; }
  [[nodiscard]] std::size_t size() const noexcept { return peers_.size(); }

  // Removes the peers whose flags are up, and those that have masked this rank. Returns how many are left.
  std::size_t look() {
    std::erase_if(peers_, [&](int peer) {
      if (is_up(peer)) return note(peer);
      FrameFlag& credit = slots_.credits(slots_.rank(), wait_.frame)[peer];
      // Acquire: pairs with the release store in Credits::set_credit().
      if (epoch_of(credit).load(std::memory_order_acquire) != credit_revoked) return false;
      // What the peer published before it masked this rank counts.
      if (is_up(peer)) return note(peer);
      credits_.mask(peer, true);
      return note(peer);
    });
    return peers_.size();
  }

  void give_up(int peer) {
    credits_.mask(peer, true);
    note(peer);
    std::erase(peers_, peer);
  }

 private:
  // `seen` gets the value of this very load: by the next one the peer may have masked this rank.
  [[nodiscard]] bool is_up(int peer) const noexcept {
    // Acquire: pairs with the release stores in LowLatency::raise() and Credits::set_credit().
    std::uint64_t const seen = epoch_of(wait_.flags[peer]).load(std::memory_order_acquire);
    if (!wait_.is_up(seen)) return false;
    if (wait_.seen != nullptr) wait_.seen[peer] = seen;
    return true;
  }

  // Adds to the caller's counter how long the peer was waited for.
  bool note(int peer) {
    if (!wait_.wait_ns.given()) return true;
    auto* const waited = static_cast<std::int64_t*>(wait_.wait_ns.data);
    waited[peer] += monotonic_ns() - begin_ns_;
    return true;
  }

  Slots const& slots_;
  Credits& credits_;
  FlagWait const& wait_;
  std::int64_t begin_ns_;
  std::vector<int> peers_;
};

}  // namespace

void LowLatency::raise(int peer, FrameFlag& flag, Raised const& to) {
  store_word(flag.digest, to.digest);
  delay_signal();
  // Release: pairs with the acquire load in MissingPeers::is_up(), and publishes the digest and the rows.
  epoch_of(flag).store(to.word, std::memory_order_release);
  // This rank itself does not sleep now.
  if (peer != slots_.rank()) signals_.ring(peer);
  delay_signal();
}

void LowLatency::await_flags(FlagWait const& wait) {
  MissingPeers missing(slots_, *credits_, wait);
  Deadline deadline = signals_.deadline();
  bool may_extend = mask_late_peers_;
  while (missing.look() > 0) {
    int const peer = missing.peers().front();
    std::size_t const before = missing.size();
    WaitResult const result = signals_.await(
        peer, [&] { return missing.look() < before; }, deadline);
    if (result == WaitResult::arrived) continue;
    if (!mask_late_peers_ || result == WaitResult::interrupted) {
      signals_.fail_awaiting(result, {peer, wait.epoch, wait.phase},
                             wait.epoch_in(load_word(wait.flags[peer].epoch)));
    }
    if (result == WaitResult::lost) {
      missing.give_up(peer);
    } else if (before > 1 && std::exchange(may_extend, false)) {
      // All late peers but one may only be held up by that one, as this rank is, until their own deadlines.
      deadline = signals_.deadline();
    } else {
      for (int const late : std::vector<int>(missing.peers())) missing.give_up(late);
    }
  }
}

}  // namespace switchyard::cpu
