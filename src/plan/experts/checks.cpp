#include "plan/experts/checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.hpp"

namespace switchyard::experts {

namespace {

// Sums of loads fit into 64 bits up to here, and tables of pairs of slots into a gigabyte.
constexpr std::int64_t most_replicas = std::int64_t{1} << 14;

void check_number(std::string_view name, std::int64_t value, std::int64_t least) {
  require(value >= least && value <= most_replicas, "{}: expected {} to {}, seen {}", name, least, most_replicas,
          value);
}

void check_divides(std::string_view name, std::int64_t value, std::string_view of, std::int64_t divisor) {
  require(value % divisor == 0, "{}: expected a multiple of {}, which is {}, seen {}", name, of, divisor, value);
}

void check_shape(ExpertArgs const& args) {
  check_number("layers", args.layers, 0);
  check_number("experts", args.experts, 1);
  check_number("replicas", args.replicas, 1);
  check_number("groups", args.groups, 1);
  check_number("nodes", args.nodes, 1);
  check_number("gpus", args.gpus, 1);
  require(args.replicas >= args.experts,
          "replicas: expected one for each of {} experts at least, seen {}; add replicas or leave experts out",
          args.experts, args.replicas);
  check_divides("replicas", args.replicas, "gpus", args.gpus);
  check_divides("gpus", args.gpus, "nodes", args.nodes);
  check_divides("experts", args.experts, "groups", args.groups);
}

// The position of element `i` of a tensor whose inner extents are these.
std::string position(std::size_t i, std::initializer_list<std::int64_t> inner) {
  std::vector<std::size_t> indices;
  for (auto each = inner.end(); each != inner.begin();) {
    auto const extent = static_cast<std::size_t>(*--each);
    indices.push_back(i % extent);
    i /= extent;
  }
  indices.push_back(i);
  return fmt::format("[{}]", fmt::join(indices.rbegin(), indices.rend(), ", "));
}

// Sums of larger numbers might not be finite.
constexpr double most_amount = 1e250;

bool is_amount(double value) noexcept {
  return value >= 0 && value <= most_amount;  // false for NaN
}

void check_amounts(std::string_view name, std::span<double const> values,
                   std::initializer_list<std::int64_t> inner) {
  auto const bad = std::find_if_not(values.begin(), values.end(), is_amount);
  if (bad == values.end()) return;
  require(false, "{}: expected finite numbers >= 0, below {}, seen {} at {}; what was not counted is 0", name,
          most_amount, *bad, position(static_cast<std::size_t>(bad - values.begin()), inner));
}

void check_load(ExpertArgs const& args) {
  require(args.load.size() == static_cast<std::size_t>(args.layers * args.experts),
          "load: expected [layers, experts], {} numbers, seen {}", args.layers * args.experts, args.load.size());
  check_amounts("load", args.load, {args.experts});
}

void check_traffic(ExpertArgs const& args) {
  if (args.traffic.empty()) return;
  auto const layer = static_cast<std::size_t>(args.layers * args.experts);
  std::size_t const sources = layer == 0 ? 0 : args.traffic.size() / layer;
  bool const fits =
      sources == static_cast<std::size_t>(args.nodes) || sources == static_cast<std::size_t>(args.gpus);
  require(fits && args.traffic.size() % layer == 0,
          "traffic: expected [layers, nodes or gpus, experts], {} or {} numbers, seen {}",
          layer * static_cast<std::size_t>(args.nodes), layer * static_cast<std::size_t>(args.gpus),
          args.traffic.size());
  check_amounts("traffic", args.traffic, {static_cast<std::int64_t>(sources), args.experts});
}

void check_old(ExpertArgs const& args) {
  if (args.old.empty()) return;
  auto const slots = static_cast<std::size_t>(args.replicas);
  require(
      args.old.size() == static_cast<std::size_t>(args.layers) * slots,
      "old: expected [layers, replicas], {} numbers, seen {}; leave it out where the number of replicas changes",
      static_cast<std::size_t>(args.layers) * slots, args.old.size());
  std::vector<std::int64_t> layer_of(static_cast<std::size_t>(args.experts), -1);
  for (std::size_t i = 0; i < args.old.size(); ++i) {
    if (args.old[i] < 0 || args.old[i] >= args.experts)
      require(false, "old: expected experts from 0 to {}, seen {} at {}", args.experts - 1, args.old[i],
              position(i, {args.replicas}));
    layer_of[static_cast<std::size_t>(args.old[i])] = static_cast<std::int64_t>(i / slots);
    if ((i + 1) % slots != 0) continue;
    auto const layer = static_cast<std::int64_t>(i / slots);
    auto const missing = std::find_if(layer_of.begin(), layer_of.end(), [&](auto each) { return each != layer; });
    require(missing == layer_of.end(),
            "old: expected each expert in each layer, seen none of expert {} in layer {}",
            missing - layer_of.begin(), layer);
  }
}

}  // namespace

void check(ExpertArgs const& args) {
  check_shape(args);
  check_load(args);
  check_traffic(args);
  check_old(args);
  require(args.slack >= 0, "slack: expected a number >= 0, seen {}", args.slack);
  require(args.move_cost >= 0, "move_cost: expected a number >= 0, seen {}", args.move_cost);
}

}  // namespace switchyard::experts
