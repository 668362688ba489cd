#include "plan/simulator/call_time.hpp"

#include <algorithm>
#include <cmath>

namespace switchyard::simulator {

namespace {

// Resources work side by side: the slowest one counts, and the others a little where they are nearly as slow.
constexpr double sharpness = 8;

constexpr double microseconds = 1e6;

double side_by_side(CallTime const& time) {
  double sum = 0;
  for (double const part : {time.sms, time.memory, time.link, time.nic, time.messages})
    sum += std::pow(part, sharpness);
  return std::pow(sum, 1 / sharpness);
}

int node_ranks(Job const& job) {
  return std::min({job.ranks, job.machine->gpus_per_node, max_node_ranks});
}

// Ranks that have no core of their own go through a call in turns.
double turns(int ranks, SharedNode const& shared) {
  return shared.cores > 0 ? std::max(1.0, 1.0 * ranks / shared.cores) : 1;
}

double fixed_of(Job const& job, CallFigures const& figures, int nodes) {
  double fixed = figures.fixed_us + figures.fixed_us_per_expert * job.experts / job.ranks;
  SharedNode const& shared = job.figures().shared;
  fixed *= turns(node_ranks(job), shared) / turns(job.figures().most_ranks, shared);
  CrossingFigures const& over = job.figures().nodes;
  if (nodes > 1) {
    double const hops = over.hops + over.hops_per_doubling * std::log2(nodes / 2.0);
    fixed += hops * job.machine->network.hop_us;
  }
  return fixed;
}

// Of a row on its way, with what goes along.
double row_bytes(Job const& job, Operation operation) {
  if (operation == Operation::combine) return static_cast<double>(job.output_bytes);
  ModeFigures const& mode = job.figures();
  return static_cast<double>(job.payload_bytes + job.scale_bytes) + mode.row_extra + mode.slot_extra * job.top_k;
}

CallFigures const& figures_of(Job const& job, Operation operation) {
  return operation == Operation::dispatch ? job.figures().dispatch : job.figures().combine;
}

double sms_of(Job const& job, CallFigures const& figures, int nodes, Traffic const& traffic, double row) {
  if (figures.sm_rate <= 0) return 0;
  double rows = figures.sm_rows_per_token * static_cast<double>(job.tokens) +
                figures.sm_rows_per_rank_row * traffic.rank_rows;
  if (nodes > 1) rows = (rows + figures.sm_rows_per_node_row * traffic.node_rows) * figures.sm_cost_over_nodes;
  return rows * row / (job.sms * figures.sm_rate * job.machine->sm_speed) * microseconds;
}

Bottleneck bottleneck_of(CallTime const& time, double moving) {
  if (time.fixed >= moving) return Bottleneck::fixed_cost;
  double const most = std::max({time.sms, time.memory, time.link, time.nic, time.messages});
  if (most == time.nic) return Bottleneck::nic;
  if (most == time.link) return Bottleneck::link;
  if (most == time.memory) return Bottleneck::memory;
  return most == time.sms ? Bottleneck::sms : Bottleneck::messages;
}

// Nothing where the link is not known: a calibrated memory's rate has it inside.
double link_of(Job const& job, CallFigures const& figures, Traffic const& traffic, double bytes, double row) {
  if (figures.link_share <= 0) return 0;
  double link = bytes / (job.machine->link_rate * figures.link_share);
  // Rows are read and written once more where they have arrived.
  if (figures.memory_share > 0)
    link += 2 * traffic.rank_rows * row / (job.machine->memory_rate * figures.memory_share);
  return link * microseconds;
}

}  // namespace

double shared_bytes(Job const& job, Traffic const& traffic, Operation operation, double link_ratio) {
  CallFigures const& figures = figures_of(job, operation);
  double const sharing = std::max(1.0, 1.0 * node_ranks(job) / std::max(1, job.figures().shared.memories));
  double const rank_rows = traffic.rank_rows * (sharing > 1 ? 1 : link_ratio);
  double const rows =
      figures.sm_rows_per_token * static_cast<double>(job.tokens) + figures.sm_rows_per_rank_row * rank_rows;
  return rows * row_bytes(job, operation) * sharing;
}

double shared_us(double bytes, double cache_bytes, CallFigures const& figures) {
  double const beyond = bytes > 0 ? bytes / (bytes + cache_bytes) : 0;
  return bytes * ((1 - beyond) / figures.cached_rate + beyond / figures.memory_rate) * microseconds;
}

CallTime time_call(Job const& job, int nodes, Traffic const& traffic, Operation operation, LoadRatio const& ratio) {
  bool const dispatch = operation == Operation::dispatch;
  Machine const& machine = *job.machine;
  ModeFigures const& mode = job.figures();
  CallFigures const& figures = figures_of(job, operation);
  double const row = row_bytes(job, operation);
  double const link_bytes = dispatch ? traffic.dispatch_link_bytes : traffic.combine_link_bytes;
  double const nic_bytes = dispatch ? traffic.dispatch_nic_bytes : traffic.combine_nic_bytes;
  double const messages = dispatch ? traffic.dispatch_messages : traffic.combine_messages;

  CallTime time;
  time.fixed = fixed_of(job, figures, nodes);
  time.sms = sms_of(job, figures, nodes, traffic, row);
  if (figures.memory_rate > 0)
    time.memory = shared_us(shared_bytes(job, traffic, operation, ratio.link), mode.cache_bytes, figures);
  time.link = link_of(job, figures, traffic, link_bytes, row) * ratio.link;
  if (nodes > 1) {
    time.nic = nic_bytes * ratio.nic / (machine.network.rate * mode.nodes.nic_share) * microseconds;
    if (machine.network.message_rate > 0) time.messages = messages / machine.network.message_rate * microseconds;
  }
  double const moving = side_by_side(time);
  double const fill = nodes > 1 ? figures.fill_us_over_nodes : figures.fill_us;
  if (fill > 0) time.fill = fill * (1 - std::exp(-moving / fill));
  time.total = time.fixed + moving + time.fill;
  time.bottleneck = bottleneck_of(time, moving);
  return time;
}

}  // namespace switchyard::simulator
