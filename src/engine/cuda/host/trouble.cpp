#include "engine/cuda/host/trouble.hpp"

#include <fmt/core.h>

#include <string>

namespace switchyard::cuda {

char const* name_of(Phase phase) noexcept {
  switch (phase) {
    case Phase::announce: return "dispatch/announce";
    case Phase::answer: return "dispatch/answer";
    case Phase::arrive: return "dispatch/arrive";
    case Phase::combine_announce: return "combine/announce";
    case Phase::stage: return "combine/stage";
    case Phase::combine_close: return "combine/close";
    case Phase::gate: return "gate";
    case Phase::slots_credit: return "low-latency dispatch/credit";
    case Phase::slots_claim: return "low-latency dispatch/claim";
    case Phase::slots_arrive: return "low-latency dispatch/arrive";
    case Phase::slots_ready: return "low-latency combine/ready";
    case Phase::none: break;
  }
  return "none";
}

Error error_of(Trouble const& trouble, int rank, std::int64_t timeout_ms) {
  ErrorFacts facts{.rank = rank, .peer = trouble.peer, .phase = name_of(trouble.phase)};
  auto const say = [&](std::string const& what) {
    return fmt::format("rank {}: {} during {}: expected {}, seen {}", rank, what, name_of(trouble.phase),
                       trouble.expected, trouble.seen);
  };
  switch (trouble.kind) {
    case TroubleKind::timeout:
      return Timeout(say(fmt::format("waited {} ms for rank {}", timeout_ms, trouble.peer)), facts);
    case TroubleKind::peer_lost: return PeerLost(say(fmt::format("rank {} ended or left", trouble.peer)), facts);
    case TroubleKind::aborted: return PeerLost(say("stopped because another rank failed"), facts);
    case TroubleKind::too_few_rows:
      return InvalidArgument(fmt::format("rank {}: num_worst_tokens: expected at least {} (rows received), seen {}",
                                         rank, trouble.expected, trouble.seen),
                             facts);
    case TroubleKind::mismatch:
    case TroubleKind::broken:
    case TroubleKind::corrupt:
    case TroubleKind::none: break;
  }
  return SystemError(say(fmt::format("what rank {} told is broken", trouble.peer)), facts);
}

}  // namespace switchyard::cuda
