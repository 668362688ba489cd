#include <nlohmann/json.hpp>

#include "cli/bench/commit.hpp"
#include "cli/bench/report.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

// What both schemas begin with.
json run_json(Report const& report) {
  BenchOptions const& options = report.options;
  bool const latency = options.mode == Mode::latency;
  json all = {{"schema", latency ? "switchyard-latency/1" : "switchyard-bench/1"},
              {"commit", commit_name},
              {"machine", to_json(report.machine)},
              {"engine", name_of(report.engine)},
              {"mode", name_of(options.mode)},
              {"layout", latency ? name_of(options.latency.layout) : name_of(options.problem.layout)},
              {"ranks", options.problem.ranks},
              {"nodes", options.problem.nodes()}};
  // Of a single case; others say theirs in `cases`.
  if (!latency && report.cases.size() == 1) all["tokens"] = options.problem.tokens;
  all.update({{"hidden", options.problem.hidden},
              {"top_k", options.problem.top_k},
              {"experts", options.problem.experts},
              {"routing", name_of(options.routing)},
              {"seed", options.problem.seed}});
  return all;
}

json operation_json(PartTime const& time, std::string_view dtype, double bytes) {
  return {{"dtype", dtype},        {"median_us", time.us.p50},     {"p99_us", time.us.p99},
          {"max_us", time.us.max}, {"recv_bytes_per_rank", bytes}, {"gbps_per_rank", time.gbps}};
}

json memory_json(MemoryUse const& memory) {
  return {
      {"counts",
       "means over ranks; pss: Pss of smaps_rollup while all tensors of an iteration live, copy buffers released; "
       "resident_peak: VmHWM, in which pages of peers' heaps and the copy buffers count in full; payload: tensors "
       "that must exist"},
      {"pss_bytes_per_rank", memory.pss_bytes},
      {"resident_peak_bytes_per_rank", memory.resident_peak_bytes},
      {"heap_peak_bytes_per_rank", memory.heap_peak_bytes},
      {"payload_bytes_per_rank",
       {{"inputs", memory.payload.inputs},
        {"received", memory.payload.received},
        {"expert_outputs", memory.payload.expert_outputs},
        {"combined", memory.payload.combined},
        {"total", memory.payload.total()}}},
      {"ratio", memory.ratio()}};
}

// What only the CUDA engine measures, by the GPU's clock.
json gpu_json(CaseReport const& of) {
  json all = {{"layout_median_us", of.time(Part::layout).us.p50},
              {"dispatch_phases_median_us", json::object()},
              {"combine_phases_median_us", json::object()},
              {"layout_phases_median_us", json::object()}};
  for (PhaseMedian const& phase : of.phases)
    all[std::string(name_of(phase.part)) + "_phases_median_us"][phase.name] = phase.us;
  return all;
}

json summary_json(PartTime const& time) {
  return {{"median_us", time.us.p50}, {"p99_us", time.us.p99}, {"max_us", time.us.max}};
}

// Calls of no tokens.
json fixed_json(CaseReport const& of) {
  json all = {{"dispatch", summary_json(of.time(Part::empty_dispatch))},
              {"combine", summary_json(of.time(Part::empty_combine))}};
  PartTime const nothing = of.time(Part::nothing);
  if (nothing.us.p50 > 0) all["nothing"] = summary_json(nothing);
  return all;
}

// Of jobs of several nodes.
void put_wire(json& all, CaseReport const& of) {
  WireUse const& wire = of.wire;
  if (wire.writes <= 0) return;
  all["descriptors_of_a_rank"] = {{"open", of.descriptors.open}, {"connections", of.descriptors.connections}};
  all["wire_bytes_per_rank"] = {{"dispatch", wire.bytes.dispatch}, {"combine", wire.bytes.combine}};
  all["wire_writes_per_rank"] = wire.writes;
  all["wire_share_in_large_writes"] = wire.large();
  all["wire_writes_by_size"] = json::array();
  for (std::size_t size = 0; size < num_write_sizes; ++size) {
    if (wire.writes_by_size[size] > 0)
      all["wire_writes_by_size"].push_back({{"from_bytes", least_bytes_of_size(size)},
                                            {"writes", wire.writes_by_size[size]},
                                            {"bytes", wire.bytes_by_size[size]}});
  }
}

// [R, R] of bytes, where a row has so many.
json bytes_json(std::vector<std::vector<double>> const& rows, double of_a_row) {
  json all = json::array();
  for (auto const& from : rows) {
    all.push_back(json::array());
    for (double const count : from) all.back().push_back(count * of_a_row);
  }
  return all;
}

// Of a combine rows go the other way.
std::vector<std::vector<double>> transposed(std::vector<std::vector<double>> const& rows) {
  std::vector<std::vector<double>> turned(rows.size(), std::vector<double>(rows.size(), 0));
  for (std::size_t from = 0; from < rows.size(); ++from)
    for (std::size_t to = 0; to < rows.size(); ++to) turned[to][from] = rows[from][to];
  return turned;
}

bool is_counted(std::vector<std::vector<double>> const& waits) {
  return !waits.empty() && !waits.front().empty();
}

// What only `switchyard report` reads.
void put_observed(json& all, CaseReport const& of) {
  if (of.traffic.rows.empty()) return;
  Observed const& observed = of.observed;
  json dispatch = {{"bytes", bytes_json(of.traffic.rows, of.row_bytes.dispatch)}};
  json combine = {{"bytes", bytes_json(transposed(of.traffic.rows), of.row_bytes.combine)}};
  if (is_counted(observed.dispatch_wait_us)) dispatch["wait_us"] = observed.dispatch_wait_us;
  if (is_counted(observed.combine_wait_us)) combine["wait_us"] = observed.combine_wait_us;
  all["between_ranks"] = {{"calls", observed.calls},
                          {"node_by_rank", of.problem.node_by_rank},
                          {"dispatch", std::move(dispatch)},
                          {"combine", std::move(combine)}};
  all["expert_tokens"] = of.traffic.expert_tokens;
  all["phases_us"] = json::object();
  for (PhaseSummary const& phase : observed.phases)
    all["phases_us"][phase.name] = {{"spans", phase.spans},
                                    {"p50", phase.us.p50},
                                    {"p95", phase.us.p95},
                                    {"p99", phase.us.p99},
                                    {"max", phase.us.max}};
}

json throughput_case_json(Report const& report, CaseReport const& of) {
  PartTime const dispatch = of.time(Part::dispatch);
  PartTime const combine = of.time(Part::combine);
  CopyRate const copy = copy_ceiling(of);
  json all = {{"dispatch", operation_json(dispatch, name_of(of.problem.payload), of.sent.dispatch)},
              {"combine", operation_json(combine, "bf16", of.sent.combine)},
              {"ceiling",
               {{"copy_gbps", copy.gbps},
                {"copy_kind", copy.kind},
                {"fraction_dispatch", copy.fraction(of.moved.dispatch, dispatch)},
                {"fraction_combine", copy.fraction(of.moved.combine, combine)}}},
              {"fixed", fixed_json(of)},
              {"memory", memory_json(of.memory)}};
  if (of.cpu.dispatch_us > 0)
    all["cpu_us_all_ranks"] = {{"dispatch", of.cpu.dispatch_us}, {"combine", of.cpu.combine_us}};
  put_wire(all, of);
  put_observed(all, of);
  if (report.engine == EngineKind::cuda) all["gpu"] = gpu_json(of);
  return all;
}

// What a run of one case measured stands beside what describes the run.
json throughput_json(Report const& report) {
  json all = {
      {"workers", report.workers}, {"iterations", report.options.iterations}, {"checked", report.options.check}};
  if (report.cases.size() == 1) {
    all.update(throughput_case_json(report, report.cases.front()));
    return all;
  }
  all["cases"] = json::array();
  for (CaseReport const& of : report.cases) {
    json one = {{"tokens", of.problem.tokens}};
    one.update(throughput_case_json(report, of));
    all["cases"].push_back(std::move(one));
  }
  return all;
}

json time_json(PartTime const& time) {
  json result = {{"p50_us", time.us.p50},
                 {"p95_us", time.us.p95},
                 {"p99_us", time.us.p99},
                 {"p99_9_us", time.us.p999},
                 {"max_us", time.us.max}};
  if (time.gbps > 0) result["gbps_per_rank"] = time.gbps;
  return result;
}

json case_json(CaseReport const& of) {
  json all = {{"tokens", of.problem.tokens},
              {"max_tokens", of.max_tokens},
              {"dispatch_bytes_per_rank", of.sent.dispatch},
              {"combine_bytes_per_rank", of.sent.combine}};
  for (PartTime const& time : of.times)
    all[std::string(name_of(time.clock))][std::string(name_of(time.part))] = time_json(time);
  put_wire(all, of);
  put_observed(all, of);
  return all;
}

json latency_json(Report const& report) {
  BenchOptions const& options = report.options;
  LatencyOptions const& latency = options.latency;
  bool const casts = options.problem.payload == Payload::fp8_cast;
  json all = {{"dtype", name_of(options.problem.payload)},
              {"cast", casts ? name_of(latency.cast) : "none"},
              {"coding", name_of(latency.coding)},
              {"zero_copy", latency.in_place()},
              {"workers", report.workers},
              {"sms", options.sms},
              {"iterations", latency.iterations},
              {"input_sets", latency.input_sets},
              {"checked", options.check},
              {"cases", json::array()}};
  for (CaseReport const& of : report.cases) all["cases"].push_back(case_json(of));
  return all;
}

}  // namespace

json to_json(Report const& report) {
  json all = run_json(report);
  all.update(report.options.mode == Mode::latency ? latency_json(report) : throughput_json(report));
  return all;
}

}  // namespace switchyard::cli
