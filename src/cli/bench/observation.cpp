#include "cli/bench/observation.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

json to_json(Observation const& mine) {
  return {{"dispatch", mine.dispatch_wait_us}, {"combine", mine.combine_wait_us}, {"phases", mine.phases_us}};
}

// Sums become means of a call.
std::vector<double> a_call(json const& sums, int calls) {
  auto row = sums.get<std::vector<double>>();
  for (double& us : row) us /= std::max(calls, 1);
  return row;
}

}  // namespace

void note_phases(std::vector<TraceSpan> const& spans, Observation& observation) {
  for (TraceSpan const& span : spans)
    observation.phases_us[span.name].push_back(static_cast<double>(span.end_ns - span.begin_ns) / 1e3);
}

Observed gather_observations(Communicator& communicator, Observation const& mine) {
  std::string const text = to_json(mine).dump();
  Observed all{.calls = mine.calls};
  std::map<std::string, std::vector<double>> phases;
  for (auto const& bytes : communicator.all_gather(std::as_bytes(std::span(text)))) {
    auto const* const from = reinterpret_cast<char const*>(bytes.data());
    json const rank = json::parse(from, from + bytes.size());
    all.dispatch_wait_us.push_back(a_call(rank["dispatch"], mine.calls));
    all.combine_wait_us.push_back(a_call(rank["combine"], mine.calls));
    for (auto const& [name, spans] : rank["phases"].items())
      for (json const& us : spans) phases[name].push_back(us.get<double>());
  }
  for (auto const& [name, us] : phases) all.phases.push_back({name, us.size(), summarise(us)});
  return all;
}

}  // namespace switchyard::cli
