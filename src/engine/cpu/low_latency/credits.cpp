#include "engine/cpu/low_latency/credits.hpp"

#include <cstring>

#include "control/signal_delay.hpp"
#include "control/signals.hpp"

namespace switchyard::cpu {

Credits::Credits(Slots slots)
    : slots_(std::move(slots)),
      bays_(slots_.heap(), slots_.at(), slots_.sizes().frames),
      masked_(static_cast<std::size_t>(slots_.num_ranks())) {}

// The word of a rank of another node lies at the rank of this node that serves it.
void Credits::set_credit(int peer, int frame, std::uint64_t credit) const noexcept {
  if (slots_.is_local(peer)) return store_credit(slots_.credits(peer, frame)[slots_.rank()], credit);
  store_credit(slots_.served_credits(slots_.server_of(peer), peer, frame)[slots_.local_of(slots_.rank())], credit);
}

void Credits::store_credit(FrameFlag& flag, std::uint64_t credit) const noexcept {
  delay_signal();
  // Release: pairs with the acquire loads in MissingPeers::is_up() at the source, and in OverNodes::take_credits()
  // at who serves it. The next rows, and claims on top of our zeros, come after all that was done with the earlier
  // ones, and with what lay in the bay before.
  epoch_of(flag).store(credit, std::memory_order_release);
  delay_signal();
}

void Credits::give_back(FrameUse const& use) noexcept {
  std::lock_guard const lock(mutex_);
  bays_.release(use.stay);
  auto const frame = static_cast<std::size_t>(use.frame);
  if (use.generation != generation_ || received_[frame] != use.epoch) return;
  if (epoch_of_credit(given_[frame]) == use.epoch) return;
  given_[frame] = credit_word(use.epoch, use.frame, bays_.of(use.frame));
  for (int expert = 0; expert < slots_.local_experts(); ++expert) {
    // Relaxed: the release store of the credits below publishes it.
    slots_.claim(slots_.rank(), use.frame, expert).store(0, std::memory_order_relaxed);
  }
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
    if (masked(peer)) continue;
    set_credit(peer, use.frame, given_[frame]);
    ring_doorbell(*slots_.heap(), slots_.local_of(slots_.server_of(peer)));
  }
}

void Credits::note_received(FrameUse const& use) {
  std::lock_guard const lock(mutex_);
  received_[static_cast<std::size_t>(use.frame)] = use.epoch;
}

void Credits::mask(int peer, bool masked) {
  std::lock_guard const lock(mutex_);
  mask_one(peer, masked);
  if (masked) mask_behind(peer);
}

void Credits::mask_behind(int peer) {
  for (int rank = 0; rank < slots_.num_ranks(); ++rank) {
    if (rank == slots_.rank() || masked_[static_cast<std::size_t>(rank)] != 0 || !is_way_to(peer, rank)) continue;
    mask_one(rank, true);
    mask_behind(rank);
  }
}

// Whether this rank exchanges with a rank of another node through `peer`: who serves that one here, or this one
// there.
bool Credits::is_way_to(int peer, int rank) const noexcept {
  if (slots_.is_local(rank)) return false;
  Topology const& topology = slots_.node().topology();
  return slots_.server_of(rank) == peer || topology.rail_peer(slots_.rank(), topology.node_of(rank)) == peer;
}

void Credits::mask_one(int peer, bool masked) {
  char const now = masked ? 1 : 0;
  if (masked_[static_cast<std::size_t>(peer)] == now) return;
  masked_[static_cast<std::size_t>(peer)] = now;
  for (int frame = 0; frame < slots_.sizes().frames; ++frame) {
    set_credit(peer, frame, masked ? credit_revoked : given(frame));
  }
  ring_doorbell(*slots_.heap(), slots_.local_of(slots_.server_of(peer)));
  if (!slots_.is_local(peer) && slots_.server_of(peer) == slots_.rank()) pass_on(peer, masked);
}

// Who serves a rank of another node says in its place that it gives no credit: to the others of this node, which
// have nothing from it but through this rank.
void Credits::pass_on(int peer, bool masked) const noexcept {
  for (int const rank : slots_.local_ranks()) {
    if (rank == slots_.rank()) continue;
    for (int frame = 0; frame < slots_.sizes().frames; ++frame)
      store_credit(slots_.credits(rank, frame)[peer], masked ? credit_revoked : 0);
  }
}

void Credits::end_generation() {
  std::lock_guard const lock(mutex_);
  ++generation_;
}

void Credits::clear() {
  std::lock_guard const lock(mutex_);
  masked_.assign(masked_.size(), 0);
  received_.fill(0);
  bays_.forget();
  for (int frame = 0; frame < slots_.sizes().frames; ++frame) given(frame) = credit_word(0, frame, bays_.of(frame));
  // No peer reads or writes these words now.
  std::memset(slots_.heap()->heap(slots_.heap()->rank()), 0, slots_.at().control_bytes);
}

void Credits::publish_bays() {
  std::lock_guard const lock(mutex_);
  for (int frame = 0; frame < slots_.sizes().frames; ++frame) {
    if (given(frame) == 0) continue;  // which is what lies there
    for (int peer = 0; peer < slots_.num_ranks(); ++peer) set_credit(peer, frame, given(frame));
  }
}

std::uint64_t Credits::generation() const {
  std::lock_guard const lock(mutex_);
  return generation_;
}

}  // namespace switchyard::cpu
