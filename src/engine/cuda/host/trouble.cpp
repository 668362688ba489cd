#include "engine/cuda/host/trouble.hpp"

#include <fmt/core.h>

#include <string>

namespace switchyard::cuda {

char const* name_of(WaitPoint point) noexcept {
  switch (point) {
    case WaitPoint::announce: return "dispatch/announce";
    case WaitPoint::answer: return "dispatch/answer";
    case WaitPoint::arrive: return "dispatch/arrive";
    case WaitPoint::combine_announce: return "combine/announce";
    case WaitPoint::stage: return "combine/stage";
    case WaitPoint::combine_close: return "combine/close";
    case WaitPoint::gate: return "gate";
    case WaitPoint::slots_credit: return "low-latency dispatch/credit";
    case WaitPoint::slots_claim: return "low-latency dispatch/claim";
    case WaitPoint::slots_arrive: return "low-latency dispatch/arrive";
    case WaitPoint::slots_ready: return "low-latency combine/ready";
    case WaitPoint::slots_read: return "low-latency combine/read";
    case WaitPoint::none: break;
  }
  return "none";
}

Error error_of(Trouble const& trouble, int rank, std::int64_t timeout_ms) {
  ErrorFacts facts{.rank = rank, .peer = trouble.peer, .phase = name_of(trouble.point)};
  auto const say = [&](std::string const& what) {
    return fmt::format("rank {}: {} during {}: expected {}, seen {}", rank, what, name_of(trouble.point),
                       trouble.expected, trouble.seen);
  };
  switch (trouble.kind) {
    case TroubleKind::timeout:
      return Timeout(say(fmt::format("waited {} ms (timeout, or SWITCHYARD_TIMEOUT_MS) for rank {}", timeout_ms,
                                     trouble.peer)),
                     facts);
    case TroubleKind::peer_lost: return PeerLost(say(fmt::format("rank {} ended or left", trouble.peer)), facts);
    case TroubleKind::aborted: return PeerLost(say("stopped because another rank failed"), facts);
    case TroubleKind::too_few_rows:
      return InvalidArgument(fmt::format("rank {}: num_worst_tokens: expected at least {} (rows received), seen {}",
                                         trouble.peer, trouble.expected, trouble.seen),
                             facts);
    case TroubleKind::mismatch:
    case TroubleKind::broken:
    case TroubleKind::corrupt:
    case TroubleKind::none: break;
  }
  return SystemError(say(fmt::format("what rank {} published is broken", trouble.peer)), facts);
}

}  // namespace switchyard::cuda
