// Waiting for a peer's flag, with a deadline. A wait that fails tells the host why and makes every later kernel of
// this buffer return at once: no trap, and the context lives.
#pragma once

#include "engine/cuda/device/tell.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

struct Awaited {
  Phase phase;
  int peer;
  std::uint64_t epoch;
};

// A wait looks seldom at anything else than what it waits for: that is slow.
inline constexpr unsigned turns_between_looks = 256;

// Only the first report of a buffer reaches the host.
__device__ inline void report(Peers const& peers, Waiting const& waiting, Trouble const& trouble) {
  if (atomicExch(&state_of(peers)->failed, 1U) != 0) return;
  Trouble& to = waiting.mailbox->trouble;
  to.kind = trouble.kind;
  to.phase = trouble.phase;
  to.peer = trouble.peer;
  to.expected = trouble.expected;
  to.seen = trouble.seen;
  ptx::store_release(&to.state, 1);  // pairs with the host's acquire load of trouble.state
}

// Why a wait must end, if it must. Looks into host memory, so it is not for every turn of a loop.
__device__ inline TroubleKind reason_to_stop(Peers const& peers, Waiting const& waiting, Awaited const& awaited,
                                             std::uint64_t begin) {
  if (has_failed(peers)) return TroubleKind::aborted;
  if (ptx::load_relaxed(&waiting.mailbox->aborted) != 0) return TroubleKind::aborted;
  std::uint64_t const lost = ptx::load_relaxed(&waiting.mailbox->lost);
  if ((lost >> awaited.peer & 1) != 0) return TroubleKind::peer_lost;
  if (ptx::global_timer() - begin > waiting.timeout_ns) return TroubleKind::timeout;
  return TroubleKind::none;
}

// Acquire: true when the flag has reached the epoch; pairs with the store_release() of the peer named in `awaited`.
__device__ inline bool wait_flag(Peers const& peers, Waiting const& waiting, std::uint64_t const* flag,
                                 Awaited const& awaited) {
  std::uint64_t begin = 0;
  for (unsigned turn = 1;; ++turn) {
    if (ptx::load_acquire(flag) >= awaited.epoch) return true;
    if (turn % turns_between_looks != 0) continue;
    if (begin == 0) begin = ptx::global_timer();
    TroubleKind const reason = reason_to_stop(peers, waiting, awaited, begin);
    if (reason == TroubleKind::none) continue;
    // The peer may have raised it before it went.
    std::uint64_t const seen = ptx::load_acquire(flag);
    if (seen >= awaited.epoch) return true;
    report(peers, waiting,
           {.state = 0,
            .kind = reason,
            .phase = awaited.phase,
            .peer = awaited.peer,
            .expected = awaited.epoch,
            .seen = seen});
    return false;
  }
}

}  // namespace switchyard::cuda
