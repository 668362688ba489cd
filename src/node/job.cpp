#include "node/job.hpp"

#include "base/check.hpp"

namespace switchyard {

Job::Job(std::shared_ptr<Store> store, Topology topology, int rank, std::chrono::milliseconds timeout)
    : topology_(std::move(topology)), rank_(rank) {
  require(rank >= 0 && rank < size(), "rank: expected 0 to {}, seen {}", size() - 1, rank);
  if (topology_.num_nodes() != 1)
    throw Unsupported(fmt::format("nodes of a job: expected 1, seen {}", topology_.num_nodes()));
  int const here = topology_.node_of(rank);
  node_ = std::make_shared<Node>(std::move(store), topology_.local_rank_of(rank), topology_.num_ranks_of(here),
                                 timeout);
}

}  // namespace switchyard
