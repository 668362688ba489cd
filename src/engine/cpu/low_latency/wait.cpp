// Waiting for the flags of all peers, and what becomes of those that are late.
#include <utility>

#include "control/signal_delay.hpp"
#include "engine/cpu/low_latency/engine.hpp"

namespace switchyard::cpu {

namespace {

// Who is still awaited, and since when.
class Missing {
 public:
  Missing(Slots const& slots, Credits& credits, FlagWait const& wait)
      : slots_(slots), credits_(credits), wait_(wait), begin_ns_(monotonic_ns()) {
    for (int peer = 0; peer < slots.num_ranks(); ++peer) {
      if (!credits.masked(peer)) peers_.push_back(peer);
    }
  }

  [[nodiscard]] std::vector<int> const& peers() const noexcept { return peers_; }
  [[nodiscard]] std::size_t size() const noexcept { return peers_.size(); }

  // Drops those whose flags are there, and those that have masked this rank.
  std::size_t look() {
    std::erase_if(peers_, [&](int peer) {
      if (told_all(peer)) return note(peer);
      FrameFlag& credit = slots_.credits(slots_.rank(), wait_.frame)[peer];
      // Acquire: pairs with the release in Credits::mask().
      if (epoch_of(credit).load(std::memory_order_acquire) != credit_revoked) return false;
      // What the peer told before it masked this rank counts.
      if (told_all(peer)) return note(peer);
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
  [[nodiscard]] bool told_all(int peer) const noexcept {
    // Acquire: pairs with the release of raise() and of Credits::credit().
    return epoch_of(wait_.flags[peer]).load(std::memory_order_acquire) == wait_.epoch;
  }

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
  tell(flag.digest, to.digest);
  delay_signal();
  // Release: pairs with the acquire in Missing::look(), and takes the rows along.
  epoch_of(flag).store(to.epoch, std::memory_order_release);
  // This rank itself does not sleep now.
  if (peer != slots_.rank()) signals_.ring(peer);
  delay_signal();
}

void LowLatency::await_flags(FlagWait const& wait) {
  Missing missing(slots_, *credits_, wait);
  Deadline deadline = signals_.deadline();
  bool once_more = mask_late_peers_;
  while (missing.look() > 0) {
    int const peer = missing.peers().front();
    std::size_t const before = missing.size();
    Arrival const how = signals_.await(
        peer, [&] { return missing.look() < before; }, deadline);
    if (how == Arrival::arrived) continue;
    if (!mask_late_peers_ || how == Arrival::interrupted) {
      signals_.fail_awaiting(how, {peer, wait.epoch, wait.phase}, told(wait.flags[peer].epoch));
    }
    if (how == Arrival::lost) {
      missing.give_up(peer);
    } else if (before > 1 && std::exchange(once_more, false)) {
      // All but one may only be held up by that one, as this rank is: until their own deadline.
      deadline = signals_.deadline();
    } else {
      for (int const late : std::vector<int>(missing.peers())) missing.give_up(late);
    }
  }
}

}  // namespace switchyard::cpu
