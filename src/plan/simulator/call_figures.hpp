// What a library's calls cost, apart from the machine: which rows it sends where, what a call takes at least, and
// what share of each data-sheet rate it reaches. docs/plan.md says what each figure was fitted to.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "plan/simulator/machine.hpp"

namespace switchyard::simulator {

enum class Mode : std::uint8_t { throughput, latency };
constexpr std::string_view name_of(Mode mode) noexcept {
  return mode == Mode::latency ? "latency" : "throughput";
}

// How often a token crosses to where several of its experts are.
enum class Crossing : std::uint8_t {
  per_slot,  // once for each of its top-k slots
  per_rank,  // once for each rank
  per_node,  // once for each other node, then once for each rank there over NVLink
};

// Of one operation: a dispatch, or a combine.
struct CallFigures {
  double fixed_us = 0;             // of a call that moves nothing
  double fixed_us_per_expert = 0;  // in addition, for each local expert
  double link_share = 0;           // of the link's data-sheet rate
  double memory_share = 0;         // of the memory's; 0: its rows are not copied once more behind the link
  // SMs. Bytes per second that one moves, and how many rows it moves for each token, (token, rank) and (token,
  // node). A rate of 0: the call takes all SMs, and they are not what limits.
  double sm_rate = 0;
  double sm_rows_per_token = 0;
  double sm_rows_per_rank_row = 1;
  double sm_rows_per_node_row = 1;
  double sm_cost_over_nodes = 1;  // how much more the kernel for several nodes takes for the same rows
  // Of a machine that was calibrated: what all ranks that share a memory read and write there in a second, while it
  // stays in caches, and when it is far more than they hold. These rows are those of the SMs. 0: not calibrated.
  double cached_rate = 0;
  double memory_rate = 0;
  // Filling and draining the pipeline of stages: at most so much, for calls that are long enough.
  double fill_us = 0;
  double fill_us_over_nodes = 0;
  // Standard deviation of the residual's logarithm, on machines that were left out of the fit one at a time.
  double spread = 0;
};

// Between nodes, of both operations.
struct CrossingFigures {
  Crossing crossing = Crossing::per_node;
  bool row_per_slot = false;  // within a node: a row for each slot rather than for each rank
  double nic_share = 0.92;
  double hops = 0;               // one-way trips between nodes that a call waits for, for any number of nodes
  double hops_per_doubling = 0;  // for each doubling of nodes behind two
  double counts_us = 0;          // the round of counts before a call's payload, two nodes
  double rows_per_message = 1;
  double spread = 0;   // as above, of what the network adds
  int most_nodes = 0;  // up to how many nodes rows were looked at
};

// How the ranks of a node that was calibrated share it.
struct SharedNode {
  int memories =
      0;  // that ranks are spread over evenly: the GPUs, or 1 for ranks of the CPU engine; 0: not calibrated
  int cores = 0;  // that ranks take turns on; 0: a call's fixed cost does not grow with them
};

struct ModeFigures {
  CallFigures dispatch{};
  CallFigures combine{};
  CrossingFigures nodes{};
  // What goes along with a row: bytes a row, and for each of its slots.
  double row_extra = 0;
  double slot_extra = 0;
  // Of the rows that were fitted: tokens a rank, and ranks of a node.
  double most_tokens = 0;
  int least_ranks = 8;
  int most_ranks = 8;
  // Of a machine that was calibrated, with one number of ranks.
  SharedNode shared{};
  double cache_bytes = 0;   // a call of so many bytes moves half of them at each of the two rates
  double least_tokens = 0;  // a rank
  double row_bytes = 0;     // of a dispatch
};

struct Library {
  std::string_view name;
  ModeFigures throughput{};
  ModeFigures latency{};
  bool has_throughput = true;
  bool has_latency = true;
  Vendor vendor = Vendor::nvidia;

  // Whether its calls can be made there, as far as that is known.
  [[nodiscard]] bool runs_on(Machine const& machine) const noexcept {
    return machine.vendor == vendor || machine.vendor == Vendor::unknown;
  }

  [[nodiscard]] bool has(Mode mode) const noexcept { return mode == Mode::latency ? has_latency : has_throughput; }
  [[nodiscard]] ModeFigures const& figures(Mode mode) const noexcept {
    return mode == Mode::latency ? latency : throughput;
  }
};

std::span<Library const> libraries();
std::vector<std::string_view> library_names();
// Throws InvalidArgument, which names what there is.
Library const& library(std::string_view name);

}  // namespace switchyard::simulator
