// What happens between ranks while a benchmark's calls run, for `switchyard report`: whom each rank waits for, and
// how long the phases of its calls take. It is observed in calls of their own, behind those that are timed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/bench/statistics.hpp"
#include "switchyard/communicator.hpp"
#include "switchyard/trace.hpp"

namespace switchyard::cli {

// Calls that are observed at most: what ranks say of them has to fit into an all_gather.
inline constexpr int most_observed = 200;

// Of one rank, over some dispatches and as many combines.
struct Observation {
  int calls = 0;
  // [R] microseconds that each rank was waited for, in all these calls; empty where the engine does not count.
  std::vector<double> dispatch_wait_us{};
  std::vector<double> combine_wait_us{};
  std::map<std::string, std::vector<double>> phases_us{};  // by name: of each span
};

// Takes the spans for the phases.
void note_phases(std::vector<TraceSpan> const& spans, Observation& observation);

struct PhaseSummary {
  std::string name;
  std::size_t spans = 0;  // of all ranks and workers
  Summary us;
};

// Of all ranks.
struct Observed {
  int calls = 0;
  // [R, R] microseconds a call: who waited, then for whom.
  std::vector<std::vector<double>> dispatch_wait_us{};
  std::vector<std::vector<double>> combine_wait_us{};
  std::vector<PhaseSummary> phases{};  // by name
};

// Collective.
Observed gather_observations(Communicator& communicator, Observation const& mine);

}  // namespace switchyard::cli
