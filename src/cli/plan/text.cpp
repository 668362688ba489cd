#include <fmt/core.h>

#include <set>

#include "cli/plan/plan.hpp"

namespace switchyard::cli {

namespace {

using simulator::CallPlan;
using simulator::OperationPlan;

constexpr double mebi = 1 << 20;

std::string machine_text(Plan const& plan) {
  auto const& machine = plan.machine;
  if (plan.calibration)
    return fmt::format("{} engine, calibrated on {} with {} ranks", plan.calibration->engine,
                       plan.calibration->date, plan.calibration->ranks);
  return fmt::format("{} GPUs a node, NVLink {:.0f} GB/s, network {:.0f} GB/s a GPU, hop {:.0f} us",
                     machine.gpus_per_node, machine.link_rate / 1e9, machine.network.rate / 1e9,
                     machine.network.hop_us);
}

std::string head(Plan const& plan) {
  return fmt::format(
      "switchyard plan: calls of {} on {} ({})\n"
      "  hidden {}, top-{} of {} experts, {} dispatch, bf16 combine, {} routing\n\n",
      plan.library, plan.machine.name, machine_text(plan), plan.shape.hidden, plan.shape.top_k, plan.shape.experts,
      plan.dtype, plan.routing);
}

std::string operation_text(OperationPlan const& plan) {
  return fmt::format("{:>8.0f} {:>15} {:<10}", plan.time.total,
                     fmt::format("[{:.0f}, {:.0f}]", plan.us.low, plan.us.high), name_of(plan.time.bottleneck));
}

std::string row(PlanCase const& each) {
  CallPlan const& plan = each.plan;
  double const link = plan.dispatch.link_bytes + plan.combine.link_bytes;
  double const nic = plan.dispatch.nic_bytes + plan.combine.nic_bytes;
  return fmt::format("{:>6} {:>5} {:<10} {:>4} {} {} {:>7.0f} {:>9.1f} {:>9.1f} {:>10.0f} {:>8.0f}\n", each.tokens,
                     each.ranks, name_of(each.mode), plan.sms, operation_text(plan.dispatch),
                     operation_text(plan.combine), plan.dispatch.counts_us, link / mebi, nic / mebi,
                     plan.dispatch.messages_per_second, static_cast<double>(plan.memory_bytes) / mebi);
}

std::string table(Plan const& plan) {
  std::string text = fmt::format(
      "{:>6} {:>5} {:<10} {:>4} {:>8} {:>15} {:<10} {:>8} {:>15} {:<10} {:>7} {:>9} {:>9} {:>10} {:>8}\n", "tokens",
      "ranks", "mode", "SMs", "dispatch", "9 of 10", "waits for", "combine", "9 of 10", "waits for", "counts",
      plan.calibration ? "in node" : "NVLink", "network", "messages", "memory");
  text += fmt::format(
      "{:>6} {:>5} {:<10} {:>4} {:>8} {:>15} {:<10} {:>8} {:>15} {:<10} {:>7} {:>9} {:>9} {:>10} {:>8}\n", "a rank",
      "", "", "", "us", "us", "", "us", "us", "", "us", "MiB", "MiB", "a second", "MiB");
  for (PlanCase const& each : plan.cases) text += row(each);
  return text;
}

std::string stragglers(Plan const& plan) {
  std::string text;
  for (PlanCase const& each : plan.cases) {
    auto const& time = each.plan.dispatch;
    if (time.time.total < 1.1 * time.median_us) continue;
    text += fmt::format(
        "  {} ranks, {} tokens, {}: dispatch {:.0f} us on the rank with most rows, {:.0f} on nine of ten, {:.0f} "
        "on the one in the middle\n",
        each.ranks, each.tokens, name_of(each.mode), time.time.total, time.p90_us, time.median_us);
  }
  return text.empty()
             ? text
             : "\nstragglers, where the rank with most rows takes over 10 % longer than the middle one\n" + text;
}

std::string chosen(Plan const& plan) {
  std::string text = "\nchoose\n";
  for (Choice const& choice : plan.choices()) {
    PlanCase const& each = *choice.of;
    text += fmt::format("  {} tokens a rank: {} ranks, {} mode: {:.0f} us a layer for dispatch and combine",
                        choice.tokens, each.ranks, name_of(each.mode), each.total_us());
    if (each.weights_bytes > 0)
      text += fmt::format("; its experts take {:.0f} GB of each {}", each.weights_bytes / 1e9,
                          plan.calibration ? "rank" : "GPU");
    text += choice.fits ? "\n" : ", which is more than it has room for\n";
  }
  return text;
}

std::string notes(Plan const& plan) {
  std::set<std::string> why;
  for (PlanCase const& each : plan.cases) {
    why.insert(each.plan.widened.begin(), each.plan.widened.end());
    if (each.replicas > 1)
      why.insert(fmt::format("{} ranks: each expert is there {} times, so that every rank holds one", each.ranks,
                             each.replicas));
  }
  std::string text;
  for (std::string const& each : why) text += "  " + each + "\n";
  return text.empty() ? text : "\nintervals are wider, and figures less sure, because\n" + text;
}

}  // namespace

std::string plan_text(Plan const& plan) {
  return head(plan) + table(plan) + stragglers(plan) + chosen(plan) + notes(plan);
}

}  // namespace switchyard::cli
