// What is asked: who calls, how much, in which way. Pure data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout/experts.hpp"
#include "layout/topology.hpp"
#include "plan/simulator/call_figures.hpp"
#include "plan/simulator/machine.hpp"

namespace switchyard::simulator {

struct Job {
  Machine const* machine = nullptr;
  Library const* library = nullptr;
  Mode mode = Mode::throughput;
  int ranks = 8;
  std::int64_t tokens = 4096;  // a rank
  int top_k = 8;
  int experts = 256;
  std::size_t payload_bytes = 0;  // of a row that a dispatch sends
  std::size_t scale_bytes = 0;    // of its scales
  std::size_t output_bytes = 0;   // of a row on its way back
  int sms = 0;                    // 0: the fewest that are good enough

  [[nodiscard]] ModeFigures const& figures() const noexcept { return library->figures(mode); }
};

// Nodes that the job's ranks fill one after another. Throws InvalidArgument for more ranks than the machine has
// GPUs.
Topology topology_of(Job const& job);

}  // namespace switchyard::simulator
