#include "api/engine_table.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "base/check.hpp"
#include "base/config.hpp"
#include "job/job.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

constexpr char const* no_cuda_build =
    "this build has no CUDA engine (configured without nvcc or without a GPU, or with SWITCHYARD_CUDA=OFF): "
    "configure with SWITCHYARD_CUDA=ON";

std::string runs_anywhere() {
  return "";
}

#if SWITCHYARD_HAS_CUDA
// Over nodes the hosts make the calls.
std::shared_ptr<detail::LowLatencyEngine> make_low_latency_on_gpus(Communicator const& communicator,
                                                                   LowLatencyOptions const& options) {
  if (communicator.job()->topology().num_nodes() == 1) return detail::make_cuda_low_latency(communicator, options);
  LowLatencyOptions of_host = options;
  of_host.engine = EngineKind::cpu;
  of_host.device = -1;
  of_host.num_sms = 0;
  return detail::make_cuda_low_latency_over_nodes(communicator, options,
                                                  detail::make_cpu_low_latency(communicator, of_host));
}
#endif

// The CPU engine comes last: it takes what no other engine can.
constexpr std::array table {
#if SWITCHYARD_HAS_CUDA
  EngineRow{EngineKind::cuda,         "cuda",    why_no_cuda, detail::make_cuda_throughput,
            make_low_latency_on_gpus, cuda_tools},
#endif
      EngineRow {
    EngineKind::cpu, "cpu", runs_anywhere, detail::make_cpu_throughput, detail::make_cpu_low_latency, nullptr
  }
};

EngineRow const* find(EngineKind kind) {
  auto const* const found = std::ranges::find(table, kind, &EngineRow::kind);
  return found == table.end() ? nullptr : found;
}

std::string_view name_of(EngineKind kind) {
  return kind == EngineKind::cuda ? "cuda" : "cpu";
}

// What this rank would take by itself. Throws Unsupported when it was asked for an engine that this build lacks.
EngineKind chosen_here(EngineKind wish) {
  std::string const setting = wish == EngineKind::automatic ? config_text(Setting::engine) : "";
  if (setting == "cpu") wish = EngineKind::cpu;
  if (setting == "cuda") wish = EngineKind::cuda;
  if (wish == EngineKind::automatic)
    return std::ranges::find_if(table, [](EngineRow const& row) { return row.why_unusable().empty(); })->kind;
  if (find(wish) == nullptr) throw Unsupported(fmt::format("engine {}: {}", name_of(wish), no_cuda_build));
  return wish;
}

}  // namespace

std::string why_no_engine(EngineKind kind) {
  EngineRow const* const row = find(kind);
  return row == nullptr ? no_cuda_build : row->why_unusable();
}

EngineRow const& choose_engine(Job& job, std::string_view options, EngineKind wish) {
  EngineKind kind = EngineKind::cpu;
  agree(job, refusal_of([&] { kind = chosen_here(wish); }));
  auto const all = gather(job, "engine", kind);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw InvalidArgument(fmt::format("rank {}: {}::engine: expected {} as on rank 0, seen {}", rank, options,
                                      name_of(all[0]), name_of(all[rank])),
                          {.rank = static_cast<int>(rank), .phase = "construction"});
  }
  return *find(kind);
}

GpuTools const* gpu_tools() noexcept {
  auto const* const found =
      std::ranges::find_if(table, [](EngineRow const& row) { return row.gpu_tools != nullptr; });
  return found == table.end() ? nullptr : &found->gpu_tools();
}

GpuTools const& require_gpu_tools() {
  GpuTools const* const tools = gpu_tools();
  if (tools == nullptr) throw Unsupported(fmt::format("GPU: {}", no_cuda_build));
  return *tools;
}

int current_gpu() noexcept {
  GpuTools const* const tools = gpu_tools();
  return tools != nullptr ? tools->current_gpu() : -1;
}

void wait_for_stream(int device, std::uintptr_t cuda_stream) {
  require_gpu_tools().wait_for_stream(device, cuda_stream);
}

bool is_captured(int device, std::uintptr_t cuda_stream) {
  return require_gpu_tools().is_captured(device, cuda_stream);
}

}  // namespace switchyard
