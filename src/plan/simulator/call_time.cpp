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
  for (double const part : {time.sms, time.link, time.nic, time.messages}) sum += std::pow(part, sharpness);
  return std::pow(sum, 1 / sharpness);
}

double fixed_of(Job const& job, CallFigures const& figures, int nodes) {
  double fixed = figures.fixed_us + figures.fixed_us_per_expert * job.experts / job.ranks;
  CrossingFigures const& over = job.figures().nodes;
  if (nodes > 1) {
    double const hops = over.hops + over.hops_per_doubling * std::log2(nodes / 2.0);
    fixed += hops * job.machine->network.hop_us;
  }
  return fixed;
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
  double const most = std::max({time.sms, time.link, time.nic, time.messages});
  if (most == time.nic) return Bottleneck::nic;
  if (most == time.link) return Bottleneck::link;
  return most == time.sms ? Bottleneck::sms : Bottleneck::messages;
}

}  // namespace

CallTime time_call(Job const& job, int nodes, Traffic const& traffic, Operation operation, LoadRatio const& ratio) {
  bool const dispatch = operation == Operation::dispatch;
  Machine const& machine = *job.machine;
  ModeFigures const& mode = job.figures();
  CallFigures const& figures = dispatch ? mode.dispatch : mode.combine;
  double const row = dispatch ? static_cast<double>(job.payload_bytes + job.scale_bytes) + mode.row_extra +
                                    mode.slot_extra * job.top_k
                              : static_cast<double>(job.output_bytes);
  double const link_bytes = dispatch ? traffic.dispatch_link_bytes : traffic.combine_link_bytes;
  double const nic_bytes = dispatch ? traffic.dispatch_nic_bytes : traffic.combine_nic_bytes;
  double const messages = dispatch ? traffic.dispatch_messages : traffic.combine_messages;

  CallTime time;
  time.fixed = fixed_of(job, figures, nodes);
  time.sms = sms_of(job, figures, nodes, traffic, row);
  time.link = link_bytes * ratio.link / (machine.link_rate * figures.link_share) * microseconds;
  // Rows are read and written once more where they have arrived.
  if (figures.memory_share > 0)
    time.link +=
        2 * traffic.rank_rows * row * ratio.link / (machine.memory_rate * figures.memory_share) * microseconds;
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
