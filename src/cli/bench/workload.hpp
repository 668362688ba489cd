// What a benchmark runs on one rank: calls in one of the two modes.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/bench/case.hpp"
#include "cli/bench/observation.hpp"
#include "cli/bench/output.hpp"
#include "cli/bench/samples.hpp"
#include "cli/bench/start_line.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// What a rank has for all its workloads.
struct RankTools {
  Communicator communicator;
  StartLine start_line;
  Progress progress;
  int workers = 1;  // threads that move data
};

// A case in one mode. All functions but engine() are collective.
class Workload {
 public:
  virtual ~Workload() = default;

  [[nodiscard]] virtual EngineKind engine() const = 0;
  // Runs before the first check.
  virtual void warm_up() = 0;
  // The first difference between what this rank received and what it must receive, if there is one.
  virtual std::optional<std::string> find_mismatch() = 0;
  virtual void measure(Samples& samples) = 0;
  // A dispatch and a combine, for a trace.
  virtual void iterate() = 0;
  // Some of both, with counting on where the engine counts. Without phases.
  virtual Observation observe() = 0;
};

// Both outlive the workload.
std::unique_ptr<Workload> make_throughput(Case const& of, RankTools& tools);
std::unique_ptr<Workload> make_low_latency(Case const& of, RankTools& tools);

}  // namespace switchyard::cli
