#include "cli/plan/plan.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "cli/plan/cluster_file.hpp"
#include "cli/plan/routing.hpp"
#include "layout/fp8.hpp"

namespace switchyard::cli {

namespace {

using simulator::Job;
using simulator::Mode;

// Of a GPU's memory; the rest is for all that is not an expert.
constexpr double memory_share = 0.7;

struct RowSizes {
  std::size_t payload = 0;
  std::size_t scales = 0;
};

RowSizes row_sizes(std::int64_t hidden, std::string_view dtype) {
  auto const elements = static_cast<std::size_t>(hidden);
  if (dtype == "bf16") return {.payload = 2 * elements};
  if (dtype == "fp4") return {.payload = (elements + 1) / 2, .scales = (elements + 15) / 16};
  return {.payload = elements, .scales = static_cast<std::size_t>(scale_groups(hidden)) * sizeof(float)};
}

Model shape_of(PlanOptions const& options) {
  Model shape = model(options.model);
  bool const changed = options.hidden > 0 || options.experts > 0;
  if (options.hidden > 0) shape.hidden = options.hidden;
  if (options.top_k > 0) shape.top_k = options.top_k;
  if (options.experts > 0) shape.experts = options.experts;
  if (changed) shape.layers = 0;  // nobody knows how large such a model's experts are
  require(shape.top_k <= shape.experts, "--top-k: expected at most {}, the experts there are, seen {}",
          shape.experts, shape.top_k);
  return shape;
}

Cluster cluster_of(PlanOptions const& options) {
  require(options.cluster.empty() || !options.machine_given,
          "--cluster: expected without --machine; its key `machine` says which one it begins with");
  if (options.cluster.empty()) return {.machine = simulator::known_machine(options.machine)};
  return read_cluster(options.cluster);
}

simulator::Library library_of(PlanOptions const& options, Cluster const& cluster) {
  simulator::Library const& named = simulator::library(options.library);
  if (cluster.calibration && named.name == "switchyard") return cluster.calibration->library();
  require(cluster.machine.link_rate > 0,
          "--library: expected switchyard, whose calls {} was calibrated with (or key `machine` in {}), seen {}",
          cluster.machine.name, options.cluster, named.name);
  return named;
}

std::vector<int> ranks_of(PlanOptions const& options, Cluster const& cluster) {
  simulator::Machine const& machine = cluster.machine;
  std::vector<int> ranks = options.ranks;
  if (ranks.empty() && cluster.calibration) return {cluster.calibration->ranks};
  for (int size = 8; options.ranks.empty() && size <= 2048; size *= 2)
    if (machine.nodes == 0 || size <= machine.gpus()) ranks.push_back(size);
  if (ranks.empty()) ranks.push_back(machine.gpus());
  for (int const size : ranks)
    require(machine.nodes == 0 || size <= machine.gpus(),
            "--ranks: expected at most {}, the GPUs of {} ({} nodes of {}), seen {}", machine.gpus(), machine.name,
            machine.nodes, machine.gpus_per_node, size);
  return ranks;
}

std::vector<Mode> modes_of(PlanOptions const& options, simulator::Library const& library) {
  std::vector<Mode> modes;
  for (Mode const mode : {Mode::throughput, Mode::latency}) {
    if (options.mode == name_of(mode))
      require(library.has(mode), "--mode: {} has no {} mode", library.name, name_of(mode));
    bool const wanted = options.mode == name_of(mode) || options.mode == "both";
    if (wanted && library.has(mode)) modes.push_back(mode);
  }
  return modes;
}

class Planner {
 public:
  explicit Planner(PlanOptions const& options)
      : options_(options),
        cluster_(cluster_of(options)),
        library_(library_of(options, cluster_)),
        shape_(shape_of(options)) {
    plan_ = {.machine = cluster_.machine,
             .calibration = library_.throughput.shared.memories > 0 ? cluster_.calibration : std::nullopt,
             .library = library_.name,
             .shape = shape_,
             .dtype = options.dtype,
             .routing = name_of(options.routing)};
  }

  Plan make() {
    PlanRouter router(options_, shape_.experts, shape_.top_k);
    auto const modes = modes_of(options_, library_);
    for (int const ranks : ranks_of(options_, cluster_)) {
      for (std::int64_t const tokens : options_.tokens) {
        auto const sources = router.route({.ranks = ranks,
                                           .tokens = tokens,
                                           .top_k = shape_.top_k,
                                           .experts = shape_.experts,
                                           .seed = options_.seed});
        for (Mode const mode : modes)
          for (int const sms : options_.sms) add(mode, ranks, tokens, sms, sources);
      }
    }
    return std::move(plan_);
  }

 private:
  void add(Mode mode, int ranks, std::int64_t tokens, int sms, std::span<simulator::SourceIds const> sources) {
    int const replicas = replicas_of(shape_.experts, ranks);
    RowSizes const row = row_sizes(shape_.hidden, options_.dtype);
    Job const job{.machine = &plan_.machine,
                  .library = &library_,
                  .mode = mode,
                  .ranks = ranks,
                  .tokens = tokens,
                  .top_k = shape_.top_k,
                  .experts = shape_.experts * replicas,
                  .payload_bytes = row.payload,
                  .scale_bytes = row.scales,
                  .output_bytes = static_cast<std::size_t>(shape_.hidden) * 2,
                  .sms = sms};
    plan_.cases.push_back({.mode = mode,
                           .ranks = ranks,
                           .tokens = tokens,
                           .experts = job.experts,
                           .replicas = replicas,
                           .weights_bytes = shape_.expert_bytes() * replicas / ranks,
                           .plan = simulate(job, sources)});
  }

  PlanOptions const& options_;
  Cluster cluster_;
  simulator::Library library_;
  Model shape_;
  Plan plan_;
};

bool fits(PlanCase const& each, simulator::Machine const& machine) {
  return each.weights_bytes + static_cast<double>(each.plan.memory_bytes) <= memory_share * machine.memory_bytes;
}

}  // namespace

std::vector<Choice> Plan::choices() const {
  std::vector<Choice> choices;
  for (PlanCase const& each : cases) {
    auto found = std::ranges::find(choices, each.tokens, &Choice::tokens);
    bool const here = fits(each, machine);
    if (found == choices.end()) {
      choices.push_back({.tokens = each.tokens, .of = &each, .fits = here});
    } else if (here > found->fits || (here == found->fits && each.total_us() < found->of->total_us())) {
      *found = {.tokens = each.tokens, .of = &each, .fits = here};
    }
  }
  return choices;
}

Plan make_plan(PlanOptions const& options) {
  return Planner(options).make();
}

}  // namespace switchyard::cli
