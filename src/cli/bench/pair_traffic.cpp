#include "cli/bench/pair_traffic.hpp"

#include <algorithm>
#include <set>

#include "layout/experts.hpp"

namespace switchyard::cli {

namespace {

class Counting {
 public:
  explicit Counting(Problem const& problem)
      : problem_(problem),
        split_(problem.experts, problem.ranks),
        traffic_{zeros(problem.ranks), zeros(problem.experts)} {}

  void add(RoutingTable const& routing, double share) {
    for (int source = 0; source < problem_.ranks; ++source)
      for (std::int64_t token = 0; token < problem_.tokens; ++token)
        add(source, routing.token(source, token), share);
  }
  [[nodiscard]] PairTraffic const& traffic() const noexcept { return traffic_; }

 private:
  [[nodiscard]] std::vector<std::vector<double>> zeros(int columns) const {
    return {static_cast<std::size_t>(problem_.ranks), std::vector<double>(static_cast<std::size_t>(columns), 0)};
  }

  // A row for each expert of the token, or for each rank that has one.
  void add(int source, std::span<std::int32_t const> ids, double share) {
    auto& rows = traffic_.rows[static_cast<std::size_t>(source)];
    std::set<int> ranks;
    for (std::int32_t const id : ids) {
      if (id < 0) continue;
      traffic_.expert_tokens[static_cast<std::size_t>(source)][static_cast<std::size_t>(id)] += share;
      int const rank = split_.rank_of(id);
      if (problem_.expanded() || ranks.insert(rank).second) rows[static_cast<std::size_t>(rank)] += share;
    }
  }

  Problem problem_;
  ExpertSplit split_;
  PairTraffic traffic_;
};

}  // namespace

PairTraffic pair_traffic(Case const& of) {
  Counting counting(of.problem());
  for (int set = 0; set < of.sets(); ++set) counting.add(of.routing(set), 1.0 / of.sets());
  return counting.traffic();
}

}  // namespace switchyard::cli
