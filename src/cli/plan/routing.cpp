#include "cli/plan/routing.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>

#include "base/check.hpp"
#include "cli/plan/text_file.hpp"
#include "oracle/random.hpp"
#include "oracle/routing.hpp"

namespace switchyard::cli {

namespace {

using Ids = std::span<std::int32_t>;

// Ids that are counted at most; drawing by loads takes several times as long as drawing evenly.
constexpr std::int64_t most_ids = 2'000'000;
constexpr std::int64_t most_drawn_ids = 400'000;

int sources_of(RoutingShape const& shape, PlanRouting kind) {
  bool const drawn = kind == PlanRouting::loads || kind == PlanRouting::zipf || kind == PlanRouting::group_limited;
  std::int64_t const fit = (drawn ? most_drawn_ids : most_ids) / (shape.tokens * shape.top_k);
  return static_cast<int>(std::clamp<std::int64_t>(fit, std::min(2, shape.ranks), shape.ranks));
}

// Slots of a token are as far apart as can be, and the next token's are one further.
void balanced_ids(int experts, std::int64_t token, Ids ids) {
  auto const count = static_cast<std::int64_t>(ids.size());
  for (std::int64_t slot = 0; slot < count; ++slot)
    ids[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>((token + slot * experts / count) % experts);
}

// Distinct experts, one after another in proportion to their loads: those with the largest of log(u) / load.
void drawn_ids(std::vector<double> const& loads, oracle::RandomRow const& random, Ids ids) {
  std::vector<std::pair<double, std::int32_t>> keys;
  for (std::size_t expert = 0; expert < loads.size(); ++expert)
    if (loads[expert] > 0)
      keys.emplace_back(std::log(random.uniform(expert)) / loads[expert], static_cast<std::int32_t>(expert));
  std::size_t const count = std::min(ids.size(), keys.size());
  std::partial_sort(keys.begin(), std::next(keys.begin(), static_cast<std::ptrdiff_t>(count)), keys.end(),
                    std::greater<>());
  std::ranges::fill(ids, -1);
  for (std::size_t slot = 0; slot < count; ++slot) ids[slot] = keys[slot].second;
}

oracle::RoutingKind oracle_kind(PlanRouting kind) {
  switch (kind) {
    case PlanRouting::group_limited: return oracle::RoutingKind::group_limited;
    case PlanRouting::zipf: return oracle::RoutingKind::zipf;
    case PlanRouting::replay: return oracle::RoutingKind::replay;
    case PlanRouting::uniform:
    case PlanRouting::balanced:
    case PlanRouting::loads: break;
  }
  return oracle::RoutingKind::uniform;
}

}  // namespace

std::vector<double> parse_loads(std::string_view text, int experts, int top_k) {
  nlohmann::ordered_json file;
  try {
    file = nlohmann::ordered_json::parse(text);
  } catch (nlohmann::json::exception const& error) {
    require(false, "expected JSON, a list of {} finite numbers: {}", experts, error.what());
  }
  require(file.is_array() && file.size() == static_cast<std::size_t>(experts),
          "expected a list of {} loads, one for each expert, seen {}", experts,
          file.is_array() ? std::to_string(file.size()) : std::string(file.type_name()));
  std::vector<double> loads;
  for (std::size_t expert = 0; expert < file.size(); ++expert) {
    auto const& value = file[expert];
    require(value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() >= 0,
            "load of expert {}: expected a finite number, 0 or more, seen {}", expert, value.dump());
    loads.push_back(value.get<double>());
  }
  auto const used = std::ranges::count_if(loads, [](double load) { return load > 0; });
  require(used >= top_k, "loads: expected {} or more that are not 0, as many as a token has slots, seen {}", top_k,
          used);
  return loads;
}

PlanRouter::PlanRouter(PlanOptions const& options, int experts, int top_k) : kind_(options.routing) {
  bool const replays = kind_ == PlanRouting::replay;
  bool const draws = kind_ == PlanRouting::loads;
  require(replays == !options.routing_file.empty(), "--routing-file: goes with --routing replay, seen {}{}",
          name_of(kind_), replays ? " without it" : "");
  require(draws == !options.loads_file.empty(), "--loads-file: goes with --routing loads, seen {}{}",
          name_of(kind_), draws ? " without it" : "");
  if (replays) recorded_ = oracle::read_npy(options.routing_file);
  if (draws) {
    try {
      loads_ = parse_loads(read_text(options.loads_file), experts, top_k);
    } catch (InvalidArgument const& fault) {
      throw InvalidArgument(fmt::format("--loads-file: {}", fault.what()));
    }
  }
}

void PlanRouter::fill(RoutingShape const& shape, int sources) {
  oracle::Problem const problem{
      .ranks = sources, .tokens = shape.tokens, .top_k = shape.top_k, .experts = shape.experts, .seed = shape.seed};
  auto const width = static_cast<std::size_t>(shape.top_k);
  ids_.resize(static_cast<std::size_t>(sources) * static_cast<std::size_t>(shape.tokens) * width);
  bool const ours = kind_ == PlanRouting::balanced || kind_ == PlanRouting::loads;
  auto const table = ours ? oracle::RoutingTable(1, 0, 1) : make_routing(problem, oracle_kind(kind_), recorded_);
  for (std::int64_t at = 0; at < sources * shape.tokens; ++at) {
    Ids const ids = Ids(ids_).subspan(static_cast<std::size_t>(at) * width, width);
    if (kind_ == PlanRouting::balanced) {
      balanced_ids(shape.experts, at, ids);
    } else if (kind_ == PlanRouting::loads) {
      drawn_ids(loads_, {shape.seed, oracle::Purpose::routing, 0, static_cast<std::uint64_t>(at)}, ids);
    } else {
      std::ranges::copy(table.token(static_cast<int>(at / shape.tokens), at % shape.tokens), ids.begin());
    }
  }
}

std::vector<simulator::SourceIds> PlanRouter::route(RoutingShape const& shape) {
  int const sources = sources_of(shape, kind_);
  fill(shape, sources);
  int const replicas = replicas_of(shape.experts, shape.ranks);
  auto const each = static_cast<std::size_t>(shape.tokens * shape.top_k);
  std::vector<simulator::SourceIds> routed;
  for (int i = 0; i < sources; ++i) {
    // Sources are taken from all over the job.
    auto const rank = static_cast<int>(static_cast<std::int64_t>(i) * shape.ranks / sources);
    Ids const ids = Ids(ids_).subspan(static_cast<std::size_t>(i) * each, each);
    for (std::int32_t& id : ids)
      if (id >= 0 && replicas > 1) id = id * replicas + i % replicas;
    routed.push_back({.rank = rank, .ids = ids});
  }
  return routed;
}

}  // namespace switchyard::cli
