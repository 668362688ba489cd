#include <nlohmann/json.hpp>

#include "cli/plan/plan.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

json operation_json(simulator::OperationPlan const& plan) {
  auto const& time = plan.time;
  return {{"us", time.total},
          {"low_us", plan.us.low},
          {"high_us", plan.us.high},
          {"median_rank_us", plan.median_us},
          {"p90_rank_us", plan.p90_us},
          {"counts_us", plan.counts_us},
          {"bottleneck", name_of(time.bottleneck)},
          {"parts_us",
           {{"fixed", time.fixed},
            {"sms", time.sms},
            {"memory", time.memory},
            {"link", time.link},
            {"nic", time.nic},
            {"messages", time.messages},
            {"fill", time.fill}}},
          {"link_bytes", plan.link_bytes},
          {"nic_bytes", plan.nic_bytes},
          {"messages", plan.messages},
          {"messages_per_second", plan.messages_per_second}};
}

json case_json(PlanCase const& each) {
  return {{"mode", name_of(each.mode)},
          {"ranks", each.ranks},
          {"nodes", each.plan.nodes},
          {"tokens", each.tokens},
          {"experts", each.experts},
          {"replicas", each.replicas},
          {"sms", each.plan.sms},
          {"sources_counted", each.plan.sources},
          {"dispatch", operation_json(each.plan.dispatch)},
          {"combine", operation_json(each.plan.combine)},
          {"memory_bytes", each.plan.memory_bytes},
          {"expert_weights_bytes", each.weights_bytes},
          {"widened", each.plan.widened}};
}

json choice_json(Choice const& choice) {
  return {{"tokens", choice.tokens},
          {"ranks", choice.of->ranks},
          {"mode", name_of(choice.of->mode)},
          {"us", choice.of->total_us()},
          {"fits", choice.fits}};
}

}  // namespace

std::string plan_json(Plan const& plan) {
  auto const& machine = plan.machine;
  json all = {
      {"schema", "switchyard-plan/1"},
      {"library", plan.library},
      {"machine",
       {{"name", machine.name},
        {"gpus_per_node", machine.gpus_per_node},
        {"nodes", machine.nodes},
        {"sms", machine.sms},
        {"memory_gbs", machine.memory_rate / 1e9},
        {"memory_gb", machine.memory_bytes / 1e9},
        {"link_gbs", machine.link_rate / 1e9},
        {"nic_gbs_per_gpu", machine.network.rate / 1e9},
        {"hop_us", machine.network.hop_us}}},
      {"model", {{"hidden", plan.shape.hidden}, {"top_k", plan.shape.top_k}, {"experts", plan.shape.experts}}},
      {"dtype", plan.dtype},
      {"routing", plan.routing},
      {"cases", json::array()},
      {"choices", json::array()}};
  if (plan.calibration)
    all["calibration"] = {{"date", plan.calibration->date},
                          {"version", plan.calibration->version},
                          {"engine", plan.calibration->engine},
                          {"ranks", plan.calibration->ranks}};
  for (PlanCase const& each : plan.cases) all["cases"].push_back(case_json(each));
  for (Choice const& choice : plan.choices()) all["choices"].push_back(choice_json(choice));
  return all.dump(2) + "\n";
}

}  // namespace switchyard::cli
