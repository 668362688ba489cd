// The routing that a plan counts: of all ranks, or of as many as are counted in a short time.
#pragma once

#include <cstdint>
#include <vector>

#include "cli/plan/options.hpp"
#include "oracle/npy.hpp"
#include "plan/simulator/traffic.hpp"

namespace switchyard::cli {

struct RoutingShape {
  int ranks = 1;
  std::int64_t tokens = 0;
  int top_k = 1;
  int experts = 0;
  std::uint64_t seed = 1;
};

// How often each expert must be there so that every rank holds one.
constexpr int replicas_of(int experts, int ranks) noexcept {
  return ranks > experts ? (ranks + experts - 1) / experts : 1;
}

// What routings are made from.
class PlanRouter {
 public:
  // Reads the files that the options name. Throws InvalidArgument when one does not fit the model's shape.
  PlanRouter(PlanOptions const& options, int experts, int top_k);

  // The ids of a job's ranks, of replicas where experts have them; views of what lives until the next call.
  std::vector<simulator::SourceIds> route(RoutingShape const& shape);

 private:
  void fill(RoutingShape const& shape, int sources);

  PlanRouting kind_;
  oracle::IdTable recorded_{};
  std::vector<double> loads_{};
  std::vector<std::int32_t> ids_{};
};

// One line about what is wrong, or a load for each expert. Throws InvalidArgument.
std::vector<double> parse_loads(std::string_view text, int experts, int top_k);

}  // namespace switchyard::cli
