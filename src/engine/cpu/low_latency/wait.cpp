// Waits for the flags of all peers, and what becomes of peers that are late.
#include <set>
#include <utility>

#include "call/hosted/guarded_call.hpp"
#include "control/signal_delay.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"

namespace switchyard::cpu {

namespace {

// The peers whose flags a wait still misses, and the time since it began.
class MissingPeers {
 public:
  MissingPeers(Slots const& slots, Credits& credits, FlagWait const& wait)
      : slots_(slots), credits_(credits), wait_(wait), begin_ns_(monotonic_ns()) {
    for (int peer = 0; peer < slots.num_ranks(); ++peer) {
      if (!credits.masked(peer) && (slots.is_local(peer) || !wait.within_node)) peers_.push_back(peer);
    }
  }

  [[nodiscard]] std::vector<int> const& peers() const noexcept { return peers_; }
  [[nodiscard]] std::size_t size() const noexcept { return peers_.size(); }
  // Ranks of this node that raise these flags.
  [[nodiscard]] std::size_t num_raisers() const {
    std::set<int> raisers;
    for (int const peer : peers_) raisers.insert(slots_.server_of(peer));
    return raisers.size();
  }

  // Removes the peers whose flags are up, and those that have masked this rank. Returns how many are left.
  std::size_t look() {
    std::erase_if(peers_, [&](int peer) {
      if (is_up(peer) || credits_.masked(peer)) return note(peer);
      if (!is_revoked(peer) && !is_revoked(slots_.server_of(peer))) return false;
      // What the peer published before it masked this rank counts.
      if (is_up(peer)) return note(peer);
      credits_.mask(is_revoked(peer) ? peer : slots_.server_of(peer), true);
      return note(peer);
    });
    return peers_.size();
  }

  // The next look removes it, and whom this rank reaches through it.
  void give_up(int peer) { credits_.mask(peer, true); }

 private:
  // Whether the peer gives this rank no credit: it has masked it, or who serves the peer has.
  [[nodiscard]] bool is_revoked(int peer) const noexcept {
    if (peer == slots_.rank()) return false;
    FrameFlag& credit = slots_.credits(slots_.rank(), wait_.frame)[peer];
    // Acquire: pairs with the release store in Credits::store_credit().
    return epoch_of(credit).load(std::memory_order_acquire) == credit_revoked;
  }
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
  if (peer != slots_.rank()) signals_.ring(slots_.local_of(peer));
  delay_signal();
}

// The flags of a peer are raised by a rank of this node: by the peer, or by who serves it. Where that is this rank
// itself, it waits for another node.
void LowLatency::await_flags(FlagWait const& wait) {
  MissingPeers missing(slots_, *credits_, wait);
  Deadline deadline = signals_.deadline();
  bool may_extend = mask_late_peers_;
  while (missing.look() > 0) {
    int const peer = missing.peers().front();
    int const raiser = slots_.server_of(peer);
    std::size_t const before = missing.size();
    int source = -1;
    if (over_nodes_) over_nodes_->begin_wait();
    WaitResult const result = signals_.await(
        slots_.local_of(raiser),
        [&] {
          if (missing.look() < before) return true;
          if (over_nodes_) source = over_nodes_->gone_or_late(missing.peers(), deadline);
          return source >= 0;
        },
        deadline);
    if (source >= 0 && may_extend && deadline.expired() && missing.num_raisers() > 1) {
      may_extend = false;
      deadline = signals_.deadline();
      continue;
    }
    if (source >= 0) over_nodes_->give_up_source(source, wait.phase);
    if (result == WaitResult::arrived) continue;
    if (!mask_late_peers_ || result == WaitResult::interrupted) {
      signals_.fail_awaiting(result, {slots_.local_of(raiser), wait.epoch, wait.phase},
                             wait.epoch_in(load_word(wait.flags[peer].epoch)));
    }
    if (result == WaitResult::lost) {
      missing.give_up(raiser);
    } else if (missing.num_raisers() > 1 && std::exchange(may_extend, false)) {
      // All late peers but one may only be held up by that one, as this rank is, until their own deadlines.
      deadline = signals_.deadline();
    } else {
      for (int const late : missing.peers())
        if (int const its = slots_.server_of(late); its != slots_.rank()) missing.give_up(its);
    }
  }
}

Surroundings LowLatency::surroundings(std::shared_ptr<Job> const& job) {
  if (!over_nodes_) return {};
  return {.idle = [this] { over_nodes_->turn(); },
          .on_held_up = [this](Member const& culprit) { over_nodes_->say_held_up(culprit.rank); },
          .silence_text = [job](int rank) { return job->silence_text(rank); }};
}

void LowLatency::run_half(char const* phase, std::function<void()> const& half) {
  if (over_nodes_) over_nodes_->begin_half();
  try {
    guarded_call(signals_, {slots_.rank(), phase}, half);
  } catch (Error const&) {
    tell_other_nodes(0);
    throw;
  }
}

void LowLatency::check_usable() {
  try {
    signals_.check_usable();
  } catch (Error const&) {
    tell_other_nodes(1);
    throw;
  }
}

void LowLatency::tell_other_nodes(std::uint64_t halves_ahead) noexcept {
  if (auto const failure = over_nodes_ ? signals_.failure() : std::nullopt)
    over_nodes_->say_failed(*failure, halves_ahead);
}

}  // namespace switchyard::cpu
