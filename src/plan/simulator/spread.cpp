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
// For GPUs that the library cannot run on.
constexpr double other_vendor = 0.3;

// Of a machine that was calibrated. On 2 cores calls of 2 and 4 ranks lie up to 40 % from what those of 8 let
// expect.
constexpr double per_doubling_of_ranks = 0.15;
constexpr double per_doubling_of_tokens = 0.1;

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

void add_fitted(Sum& sum, Job const& job, int ranks) {
  ModeFigures const& mode = job.figures();
  auto const tokens = static_cast<double>(job.tokens);
  if (!job.library->runs_on(*job.machine))
    sum.add(other_vendor, fmt::format("{} does not run on {}'s GPUs: it is planned as if it did", job.library->name,
                                      job.machine->name));
  if (!job.machine->gpu_fitted) sum.add(0, fmt::format("no row of {}'s GPUs was fitted", job.machine->name));
  if (tokens > mode.most_tokens)
    sum.add(per_doubling * std::log2(tokens / mode.most_tokens),
            fmt::format("{} was fitted to at most {} tokens a rank", job.library->name, mode.most_tokens));
  add_ranks(sum, job, ranks);
}

void add_calibrated(Sum& sum, Job const& job, int ranks) {
  ModeFigures const& mode = job.figures();
  auto const tokens = static_cast<double>(job.tokens);
  double const nearest = std::clamp(tokens, mode.least_tokens, mode.most_tokens);
  if (tokens != nearest)
    sum.add(per_doubling_of_tokens * std::abs(std::log2(tokens / nearest)),
            fmt::format("{} mode was calibrated with {} to {} tokens a rank", name_of(job.mode), mode.least_tokens,
                        mode.most_tokens));
  if (ranks != mode.most_ranks)
    sum.add(per_doubling_of_ranks * std::abs(std::log2(1.0 * ranks / mode.most_ranks)),
            fmt::format("{} ranks were calibrated: others are taken to find the same rates of memory{}",
                        mode.most_ranks,
                        mode.shared.cores > 0 ? ", and a fixed cost that grows with ranks a core" : ""));
  auto const row = static_cast<double>(job.payload_bytes + job.scale_bytes);
  if (row != mode.row_bytes)
    sum.add(per_doubling * std::abs(std::log2(row / mode.row_bytes)),
            fmt::format("rows of {} bytes were calibrated, these have {}", mode.row_bytes, row));
}

}  // namespace

Spread spread_of(Job const& job, int nodes, Operation operation) {
  ModeFigures const& mode = job.figures();
  CallFigures const& figures = operation == Operation::dispatch ? mode.dispatch : mode.combine;
  Machine const& machine = *job.machine;
  bool const calibrated = figures.memory_rate > 0;
  double const inside = figures.spread * (machine.gpu_fitted || calibrated ? 1 : never_there);
  Sum sum(nodes > 1 ? inside * inside_over_nodes : inside);
  auto const name = job.library->name;
  int const ranks = std::min(job.ranks, std::min(machine.gpus_per_node, max_node_ranks));
  if (calibrated) {
    add_calibrated(sum, job, ranks);
  } else {
    add_fitted(sum, job, ranks);
  }
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
