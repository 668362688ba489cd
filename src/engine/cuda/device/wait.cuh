// Waiting for a peer's flag, with a deadline. A wait that fails reports why to the host, and makes every later
// kernel of this buffer return at once. Kernels never trap, so the CUDA context stays usable.
#pragma once

#include "engine/cuda/device/report.cuh"

namespace switchyard::cuda {

struct AwaitedFlag {
  WaitPoint point;
  int peer;
  std::uint64_t epoch;
};

// A wait checks everything other than its flag only once in this many polls, because those checks are slow.
inline constexpr unsigned polls_between_checks = 256;

// Why a wait must end, or none. This reads host memory, so it is not for every turn of a loop.
__device__ inline TroubleKind reason_to_stop(Peers const& peers, Waiting const& waiting, AwaitedFlag const& awaited,
                                             std::uint64_t begin) {
  if (has_failed(peers)) return TroubleKind::aborted;
  // Relaxed: these two pair with HostMailbox::set_aborted() and set_lost(), and nothing else is read because of
  // them.
  if (ptx::load_relaxed(&waiting.mailbox->aborted) != 0) return TroubleKind::aborted;
  std::uint64_t const lost = ptx::load_relaxed(&waiting.mailbox->lost);
  if ((lost >> awaited.peer & 1) != 0) return TroubleKind::peer_lost;
  if (ptx::global_timer() - begin > waiting.timeout_ns) return TroubleKind::timeout;
  return TroubleKind::none;
}

// Returns true when the flag has reached the epoch, and false when the wait failed, which it has then reported. The
// load is an acquire; it pairs with the store_release() of the peer named in `awaited`.
__device__ inline bool wait_flag(Peers const& peers, Waiting const& waiting, std::uint64_t const* flag,
                                 AwaitedFlag const& awaited) {
  std::uint64_t begin = 0;
  for (unsigned poll = 1;; ++poll) {
    if (ptx::load_acquire(flag) >= awaited.epoch) return true;
    if (poll % polls_between_checks != 0) continue;
    if (begin == 0) begin = ptx::global_timer();
    TroubleKind const reason = reason_to_stop(peers, waiting, awaited, begin);
    if (reason == TroubleKind::none) continue;
    // The peer may have raised the flag before it was lost.
    std::uint64_t const seen = ptx::load_acquire(flag);
    if (seen >= awaited.epoch) return true;
    report(peers, waiting,
           {.state = 0,
            .kind = reason,
            .point = awaited.point,
            .peer = awaited.peer,
            .expected = awaited.epoch,
            .seen = seen});
    return false;
  }
}

}  // namespace switchyard::cuda
