// What `switchyard plan` finds, for text and JSON alike.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/plan/calibration_file.hpp"
#include "cli/plan/models.hpp"
#include "cli/plan/options.hpp"
#include "plan/simulator/simulate.hpp"

namespace switchyard::cli {

struct PlanCase {
  simulator::Mode mode = simulator::Mode::throughput;
  int ranks = 0;
  std::int64_t tokens = 0;
  int experts = 0;           // with replicas
  int replicas = 1;          // of each expert
  double weights_bytes = 0;  // of a rank's experts, all layers; 0: not known
  simulator::CallPlan plan{};

  // What a step waits for communication, once a layer.
  [[nodiscard]] double total_us() const noexcept {
    return plan.dispatch.time.total + plan.dispatch.counts_us + plan.combine.time.total;
  }
};

// What to take for so many tokens a rank.
struct Choice {
  std::int64_t tokens = 0;
  PlanCase const* of = nullptr;
  bool fits = true;  // the experts' weights and the call's memory, into the GPU
};

struct Plan {
  simulator::Machine machine{};
  std::optional<Calibration> calibration{};  // that times come from
  std::string_view library;
  Model shape{};  // with what the options change
  std::string_view dtype;
  std::string_view routing;
  std::vector<PlanCase> cases{};

  // One for each count of tokens: the case with the least time, of those where the experts fit into memory.
  [[nodiscard]] std::vector<Choice> choices() const;
};

// Throws InvalidArgument for what cannot be.
Plan make_plan(PlanOptions const& options);

std::string plan_text(Plan const& plan);
std::string plan_json(Plan const& plan);

}  // namespace switchyard::cli
