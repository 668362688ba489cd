#include "plan/simulator/call_figures.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "base/check.hpp"
#include "base/nearest.hpp"

namespace switchyard::simulator {

namespace {

// DeepEP V1, many tokens. Fitted to the EP8 rows (GB200: EP4) of H100, H200 and GB200 with 4 to 24 SMs. What calls
// between nodes have of their own (sm_cost_over_nodes, fill_us_over_nodes, counts_us) shows in no row of one node:
// it is fitted to the EP16 rows with 4 SMs, which no NIC limits.
constexpr ModeFigures deepep_throughput = {.dispatch = {.fixed_us = 26.1,
                                                        .link_share = 0.73,
                                                        .sm_rate = 17.45e9,
                                                        .fill_us = 9.9,
                                                        .fill_us_over_nodes = 11,
                                                        .spread = 0.145},
                                           .combine = {.fixed_us = 45.1,
                                                       .link_share = 0.70,
                                                       .sm_rate = 19.13e9,
                                                       .sm_cost_over_nodes = 1.43,
                                                       .fill_us = 7.9,
                                                       .fill_us_over_nodes = 28.4,
                                                       .spread = 0.07},
                                           .nodes = {.crossing = Crossing::per_node,
                                                     .hops_per_doubling = 1,
                                                     .counts_us = 33,
                                                     .rows_per_message = 16,
                                                     .spread = 0.1,
                                                     .most_nodes = 4},
                                           .slot_extra = 12,
                                           .most_tokens = 131072,
                                           .least_ranks = 4};

// DeepEP V1, few tokens. Fitted to the EP8 rows (GB200: EP4) of H100, H200 and GB200; a hop and the NIC's share to
// DeepEP's own table of H800 (EP16 to EP256) and pplx's of H100 (EP16 to EP64), both of 128 tokens.
constexpr ModeFigures deepep_latency = {
    .dispatch =
        {.fixed_us = 7.3, .fixed_us_per_expert = 0.13, .link_share = 0.85, .memory_share = 0.57, .spread = 0.09},
    .combine = {.fixed_us = 13, .link_share = 0.55, .spread = 0.18},
    .nodes = {.crossing = Crossing::per_slot, .row_per_slot = true, .hops = 1, .spread = 0.08, .most_nodes = 32},
    .row_extra = 16,
    .most_tokens = 1024,
    .least_ranks = 4};

// pplx has what DeepEP's low-latency mode has, one write for a peer, and a proxy: its tables are what a hop of EFA
// is fitted to.
constexpr ModeFigures pplx_latency = [] {
  ModeFigures figures = deepep_latency;
  figures.nodes.rows_per_message = 16;
  figures.nodes.spread = 0.12;
  figures.nodes.most_nodes = 8;
  figures.most_tokens = 128;
  return figures;
}();

// TensorRT-LLM over NVLink: fitted to EP8 of GB200 NVL72. Two-sided calls come after a prepare, which is not in
// them.
constexpr ModeFigures trtllm_one_sided = {
    .dispatch = {.fixed_us = 17.9, .link_share = 0.73, .spread = 0.1},
    .combine = {.fixed_us = 23.7, .link_share = 0.735, .spread = 0.12},
    .nodes = {.crossing = Crossing::per_rank, .hops = 1, .spread = 0.25, .most_nodes = 1},
    .most_tokens = 65536};
constexpr ModeFigures trtllm_two_sided = {
    .dispatch = {.fixed_us = 12.6, .link_share = 0.62, .spread = 0.1},
    .combine = {.fixed_us = 13.8, .link_share = 0.57, .spread = 0.1},
    .nodes = {.crossing = Crossing::per_rank, .hops = 1, .spread = 0.25, .most_nodes = 1},
    .most_tokens = 65536};

// MoRI's kernels for few tokens: a row for each rank, and between nodes one for each node. Fitted to MI300X: what a
// node does to EP8 with 128 and 4096 tokens, hops to EP16 with 128. The spread within a node is that of the other
// libraries' machines, since there is only one.
constexpr ModeFigures mori_latency = {
    .dispatch = {.fixed_us = 19.7, .link_share = 0.645, .spread = 0.12},
    .combine = {.fixed_us = 18, .link_share = 0.66, .spread = 0.18},
    .nodes = {.crossing = Crossing::per_node, .hops = 4, .hops_per_doubling = 1, .spread = 0.15, .most_nodes = 2},
    .slot_extra = 8,
    .most_tokens = 4096};

// Ours. Rates and fixed costs are those of plan/sm_figures.hpp, which were measured on one H200 that ranks share
// and on two H100s. Between nodes nothing was measured on GPUs: hops and shares are taken over from the others, and
// the interval is wide.
constexpr ModeFigures switchyard_throughput = {.dispatch = {.fixed_us = 18.5,
                                                            .link_share = 0.7,
                                                            .sm_rate = 70e9,
                                                            .sm_rows_per_token = 1,
                                                            .sm_rows_per_node_row = 2,
                                                            .fill_us_over_nodes = 11,
                                                            .spread = 0.2},
                                               .combine = {.fixed_us = 10,
                                                           .link_share = 0.66,
                                                           .sm_rate = 90e9,
                                                           .sm_rows_per_token = 1,
                                                           .sm_rows_per_node_row = 2,
                                                           .fill_us_over_nodes = 28,
                                                           .spread = 0.2},
                                               .nodes = {.crossing = Crossing::per_node,
                                                         .hops = 1,
                                                         .hops_per_doubling = 1,
                                                         .counts_us = 33,
                                                         .spread = 0.25,
                                                         .most_nodes = 1},
                                               .slot_extra = 12,
                                               .most_tokens = 8192,
                                               .least_ranks = 2};
// 128 tokens of 8 ranks on one H200 take 27.6 and 39.1 us, 16 tokens 15.9 and 12.6.
constexpr ModeFigures switchyard_latency = {
    .dispatch = {.fixed_us = 14, .link_share = 0.7, .spread = 0.25},
    .combine = {.fixed_us = 10, .link_share = 0.6, .spread = 0.25},
    .nodes = {.crossing = Crossing::per_node, .row_per_slot = true, .hops = 1, .spread = 0.25, .most_nodes = 1},
    .slot_extra = 12,
    .most_tokens = 256,
    .least_ranks = 4};

}  // namespace

std::span<Library const> libraries() {
  static constexpr std::array all{
      Library{.name = "switchyard", .throughput = switchyard_throughput, .latency = switchyard_latency},
      Library{.name = "deepep", .throughput = deepep_throughput, .latency = deepep_latency},
      Library{.name = "pplx", .latency = pplx_latency, .has_throughput = false},
      Library{.name = "trtllm-one-sided", .latency = trtllm_one_sided, .has_throughput = false},
      Library{.name = "trtllm-two-sided", .latency = trtllm_two_sided, .has_throughput = false},
      Library{.name = "mori", .latency = mori_latency, .has_throughput = false, .vendor = Vendor::amd}};
  return all;
}

std::vector<std::string_view> library_names() {
  std::vector<std::string_view> names;
  for (Library const& each : libraries()) names.push_back(each.name);
  return names;
}

Library const& library(std::string_view name) {
  auto const all = libraries();
  auto const found = std::ranges::find(all, name, &Library::name);
  if (found == all.end()) {
    auto const names = library_names();
    std::string known;
    for (std::string_view const each : names) known += (known.empty() ? "" : ", ") + std::string(each);
    require(false, "library: expected one of {}, seen '{}'{}", known, name, did_you_mean(name, names));
  }
  return *found;
}

}  // namespace switchyard::simulator
