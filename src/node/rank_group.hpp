// Ranks that make collective calls together: those of a node, or those of a job.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace switchyard {

// Collective calls are made by all ranks of the group, in the same order on each, by one thread at a time. They
// throw Timeout (which names the rank that is late) or PeerLost; the group makes no further calls after that.
class RankGroup {
 public:
  RankGroup() = default;
  virtual ~RankGroup() = default;
  RankGroup(RankGroup const&) = delete;
  RankGroup& operator=(RankGroup const&) = delete;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int size() const noexcept = 0;

  // Returns what every rank brought, by rank. Throws InvalidArgument, before anything is sent, when `mine` is
  // larger than 16 MiB.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine) = 0;
  virtual void barrier() = 0;

  // Whether a collective went on without the rank (see LossTolerance in job/job.hpp). It brings nothing any more.
  [[nodiscard]] virtual bool is_absent(int /*rank*/) const noexcept { return false; }
};

}  // namespace switchyard
