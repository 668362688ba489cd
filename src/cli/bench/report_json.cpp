#include <nlohmann/json.hpp>

#include "cli/bench/output.hpp"
#include "cli/bench/report.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

json operation_json(Operation const& operation) {
  return {{"dtype", operation.dtype},
          {"median_us", operation.us.median},
          {"p99_us", operation.us.p99},
          {"max_us", operation.us.max},
          {"recv_bytes_per_rank", operation.recv_bytes},
          {"gbps_per_rank", operation.gbps}};
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

json phases_json(std::vector<Phase> const& phases) {
  json all = json::object();
  for (Phase const& phase : phases) all[phase.name] = phase.us;
  return all;
}

// What only the CUDA engine measures, by the GPU's clock.
json gpu_json(BenchReport const& report) {
  return {{"layout_median_us", report.layout_us.median},
          {"dispatch_phases_median_us", phases_json(report.dispatch_phases)},
          {"combine_phases_median_us", phases_json(report.combine_phases)},
          {"layout_phases_median_us", phases_json(report.layout_phases)}};
}

}  // namespace

json to_json(BenchReport const& report) {
  Problem const& problem = report.options.problem;
  json result = {{"schema", "switchyard-bench/1"},
                 {"commit", commit_name()},
                 {"machine", to_json(report.machine)},
                 {"engine", report.engine == EngineKind::cuda ? "cuda" : "cpu"},
                 {"mode", name_of(report.options.mode)},
                 {"layout", name_of(problem.layout)},
                 {"ranks", problem.ranks},
                 {"nodes", 1},
                 {"tokens", problem.tokens},
                 {"hidden", problem.hidden},
                 {"top_k", problem.top_k},
                 {"experts", problem.experts},
                 {"routing", name_of(report.options.routing)},
                 {"seed", problem.seed},
                 {"workers", report.workers},
                 {"iterations", report.options.iterations},
                 {"dispatch", operation_json(report.dispatch)},
                 {"combine", operation_json(report.combine)},
                 {"ceiling",
                  {{"copy_gbps", report.copy_gbps},
                   {"copy_kind", report.copy_kind},
                   {"fraction_dispatch", report.dispatch.fraction},
                   {"fraction_combine", report.combine.fraction}}},
                 {"checked", report.options.check},
                 {"memory", memory_json(report.memory)}};
  if (report.engine == EngineKind::cuda) result["gpu"] = gpu_json(report);
  return result;
}

}  // namespace switchyard::cli
