#include "plan/simulator/simulate.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "layout/receive_block.hpp"
#include "layout/slots.hpp"
#include "plan/simulator/spread.hpp"

namespace switchyard::simulator {

namespace {

// What clocks and launches scatter by, however short the call.
constexpr double least_us = 2;
// SMs are enough when no larger number makes both calls together faster than by this ratio.
constexpr double good_enough = 0.95;

class Simulation {
 public:
  Simulation(Job const& job, int nodes, Traffic const& traffic) : job_(job), nodes_(nodes), traffic_(traffic) {}

  [[nodiscard]] OperationPlan operation(Operation which) const {
    OperationPlan plan;
    plan.time = time_at(which, {.link = traffic_.link.max, .nic = traffic_.nic.max});
    plan.median_us = time_at(which, {.link = traffic_.link.median, .nic = traffic_.nic.median}).total;
    plan.p90_us = time_at(which, {.link = traffic_.link.p90, .nic = traffic_.nic.p90}).total;
    plan.counts_us = counts_us(which);
    bool const dispatch = which == Operation::dispatch;
    plan.link_bytes = dispatch ? traffic_.dispatch_link_bytes : traffic_.combine_link_bytes;
    plan.nic_bytes = dispatch ? traffic_.dispatch_nic_bytes : traffic_.combine_nic_bytes;
    plan.messages = dispatch ? traffic_.dispatch_messages : traffic_.combine_messages;
    plan.messages_per_second = plan.messages / plan.time.total * 1e6;
    plan.us = around(plan.time.total, spread_of(job_, nodes_, which).sigma);
    return plan;
  }

  [[nodiscard]] double both(int sms) const {
    Job with = job_;
    with.sms = sms;
    LoadRatio const ratio{.link = traffic_.link.max, .nic = traffic_.nic.max};
    return time_call(with, nodes_, traffic_, Operation::dispatch, ratio).total +
           time_call(with, nodes_, traffic_, Operation::combine, ratio).total;
  }

 private:
  [[nodiscard]] CallTime time_at(Operation which, LoadRatio const& ratio) const {
    return time_call(job_, nodes_, traffic_, which, ratio);
  }

  // A combine knows the counts of its dispatch.
  [[nodiscard]] double counts_us(Operation which) const {
    CrossingFigures const& over = job_.figures().nodes;
    if (nodes_ == 1 || which == Operation::combine || over.counts_us <= 0) return 0;
    return over.counts_us + 2 * job_.machine->network.hop_us * std::log2(nodes_ / 2.0);
  }

  static Interval around(double us, double sigma) {
    double const factor = std::exp(nine_of_ten * sigma);
    return {.low = std::max(0.0, std::min(us / factor, us - least_us)),
            .high = std::max(us * factor, us + least_us)};
  }

  Job const& job_;
  int nodes_;
  Traffic const& traffic_;
};

// Even, as kernels want them that divide SMs into senders and receivers.
int enough_sms(Job const& job, Simulation const& simulation) {
  int const most = std::max(2, job.machine->sms / 2 * 2);
  double const best = simulation.both(most);
  int sms = 2;
  while (sms < most && best < good_enough * simulation.both(sms)) sms += 2;
  return sms;
}

std::int64_t latency_memory(Job const& job) {
  ExpertSplit const experts(job.experts, job.ranks);
  SlotSizes const sizes{.num_ranks = job.ranks,
                        .num_experts = job.experts,
                        .max_local_experts = experts.max_count(),
                        .top_k = job.top_k,
                        .frames = 2,
                        .max_tokens = job.tokens,
                        .row_bytes = job.payload_bytes,
                        .scale_bytes = job.scale_bytes,
                        .output_bytes = job.output_bytes};
  return static_cast<std::int64_t>(slot_layout(sizes).bytes);
}

// Of the rank that receives most.
std::int64_t throughput_memory(Job const& job, Traffic const& traffic) {
  auto const rows = static_cast<std::int64_t>(std::ceil(traffic.rank_rows * traffic.link.max));
  auto const slots = static_cast<std::size_t>(job.top_k);
  ReceiveShape shape{.rows = rows,
                     .row_bytes = job.payload_bytes,
                     .scale_bytes = job.scale_bytes,
                     .topk_bytes = slots * sizeof(std::int64_t),
                     .weight_bytes = slots * sizeof(float)};
  std::size_t const results = receive_block(shape).bytes;
  return static_cast<std::int64_t>(results + static_cast<std::size_t>(rows) * job.output_bytes);
}

void check(Job const& job) {
  require(job.library->has(job.mode), "mode: {} has no {} mode", job.library->name, name_of(job.mode));
  require(job.experts >= job.ranks, "experts: expected {} or more, one for each rank, seen {}", job.ranks,
          job.experts);
  require(job.top_k >= 1 && job.top_k <= job.experts, "top_k: expected 1..{}, seen {}", job.experts, job.top_k);
  require(job.tokens >= 1, "tokens: expected 1 or more, seen {}", job.tokens);
  require(job.sms >= 0 && job.sms <= job.machine->sms, "sms: expected 0..{}, those of {}, seen {}",
          job.machine->sms, job.machine->name, job.sms);
}

}  // namespace

CallPlan simulate(Job job, std::span<SourceIds const> sources) {
  check(job);
  Topology const topology = topology_of(job);
  int const nodes = topology.num_nodes();
  Traffic const traffic = count_traffic(job, topology, sources);
  Simulation const simulation(job, nodes, traffic);
  bool const all_sms = job.figures().dispatch.sm_rate <= 0;
  if (job.sms == 0) job.sms = all_sms ? job.machine->sms : enough_sms(job, simulation);
  CallPlan plan{.nodes = nodes, .sms = job.sms, .sources = traffic.sources};
  plan.dispatch = simulation.operation(Operation::dispatch);
  plan.combine = simulation.operation(Operation::combine);
  plan.memory_bytes = job.mode == Mode::latency ? latency_memory(job) : throughput_memory(job, traffic);
  plan.widened = spread_of(job, nodes, Operation::dispatch).widened;
  return plan;
}

}  // namespace switchyard::simulator
