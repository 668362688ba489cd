#include "plan/simulator/spread.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace switchyard::simulator {

namespace {

// Three machines were left out in turn, which are few: for one that was never there, theirs counts so often.
constexpr double never_there = 1.5;
// Between nodes the network takes most of a call, and what is inside a node matters half as much.
constexpr double inside_over_nodes = 0.5;
// For each doubling beyond what was fitted.
constexpr double per_doubling = 0.05;
// For a network that no row was measured on.
constexpr double other_network = 0.15;

class Sum {
 public:
  explicit Sum(double sigma) : square_(sigma * sigma) {}
  void add(double sigma) { square_ += sigma * sigma; }
  void add(double sigma, std::string why) {
    add(sigma);
    why_.push_back(std::move(why));
  }
  Spread take() { return {.sigma = std::sqrt(square_), .widened = std::move(why_)}; }

 private:
  double square_;
  std::vector<std::string> why_;
};

void add_ranks(Sum& sum, Job const& job, int ranks) {
  ModeFigures const& mode = job.figures();
  int const nearest = std::clamp(ranks, mode.least_ranks, mode.most_ranks);
  if (ranks == nearest) return;
  sum.add(per_doubling * std::abs(std::log2(1.0 * ranks / nearest)),
          fmt::format("{} was fitted to {} to {} ranks of a node", job.library->name, mode.least_ranks,
                      mode.most_ranks));
}

}  // namespace

Spread spread_of(Job const& job, int nodes, Operation operation) {
  ModeFigures const& mode = job.figures();
  CallFigures const& figures = operation == Operation::dispatch ? mode.dispatch : mode.combine;
  Machine const& machine = *job.machine;
  double const inside = figures.spread * (machine.gpu_fitted ? 1 : never_there);
  Sum sum(nodes > 1 ? inside * inside_over_nodes : inside);
  auto const name = job.library->name;
  auto const tokens = static_cast<double>(job.tokens);
  if (!machine.gpu_fitted) sum.add(0, fmt::format("no row of {}'s GPUs was fitted", machine.name));
  if (tokens > mode.most_tokens)
    sum.add(per_doubling * std::log2(tokens / mode.most_tokens),
            fmt::format("{} was fitted to at most {} tokens a rank", name, mode.most_tokens));
  add_ranks(sum, job, std::min(job.ranks, std::min(machine.gpus_per_node, max_node_ranks)));
  if (nodes == 1) return sum.take();
  sum.add(mode.nodes.spread);
  if (mode.nodes.most_nodes <= 1) {
    sum.add(0, fmt::format("no calls of {} between nodes were fitted", name));
  } else if (nodes > mode.nodes.most_nodes) {
    sum.add(per_doubling * std::log2(1.0 * nodes / mode.nodes.most_nodes),
            fmt::format("{} was compared on at most {} nodes", name, mode.nodes.most_nodes));
  }
  if (!machine.network_fitted)
    sum.add(other_network, fmt::format("no row of {}'s network was fitted", machine.name));
  return sum.take();
}

}  // namespace switchyard::simulator
