#include "cli/info.hpp"

#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/engine_table.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "base/unique_fd.hpp"
#include "cli/machine.hpp"
#include "cli/print.hpp"
#include "cli/topology.hpp"
#include "engine/cpu/simd/target.hpp"
#include "switchyard/error.hpp"
#include "transport/libfabric/libfabric.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

// Something that may or may not be had, and why.
struct Offer {
  std::string name;
  bool available = false;
  std::string why;
};

Offer memfd() {
  UniqueFd const fd(::memfd_create("switchyard-info", MFD_CLOEXEC));
  return {"memfd", static_cast<bool>(fd),
          fd ? "intra-node: shared memory, handed over by SCM_RIGHTS" : "refused by the kernel"};
}

Offer cuda_engine() {
  std::string const why = why_no_engine(EngineKind::cuda);
  return {"cuda", why.empty(), why.empty() ? "NVIDIA GPUs of this node" : why};
}

// A setting that does not parse is shown as such, not fatal here.
bool is_off(Setting setting) {
  try {
    return config_text(setting) == "off";
  } catch (InvalidArgument const&) {
    return false;
  }
}

Offer huge_pages() {
  std::string const policy = first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  bool given = false;
  for (char const* const word : {"[advise]", "[within_size]", "[always]", "[force]"}) {
    given = given || policy.find(word) != std::string::npos;
  }
  if (is_off(Setting::huge_pages)) return {"huge pages", false, "SWITCHYARD_HUGE_PAGES=off"};
  return {"huge pages", given,
          policy.empty() ? "this kernel has none for shared memory" : "shmem_enabled: " + policy};
}

Offer numa_binding(Topology const& topology) {
  if (is_off(Setting::numa)) return {"NUMA binding", false, "SWITCHYARD_NUMA=off"};
  if (topology.numa_nodes < 2) return {"NUMA binding", false, "one NUMA node: nothing to bind"};
  return {"NUMA binding", true, fmt::format("{} NUMA nodes", topology.numa_nodes)};
}

std::string_view means_of(GpuMemoryKind kind) {
  switch (kind) {
    case GpuMemoryKind::fd: return "cuMemCreate, handed over as a file descriptor";
    case GpuMemoryKind::fabric: return "cuMemCreate, handed over as a fabric handle";
    case GpuMemoryKind::ipc: return "cudaMalloc, handed over by CUDA IPC";
  }
  return "";
}

// What the current GPU really gives when asked.
std::vector<Offer> gpu_memory() {
  std::string const no_gpu = why_no_engine(EngineKind::cuda);
  if (!no_gpu.empty()) return {{"GPU memory", false, no_gpu}};
  std::vector<Offer> offers;
  for (GpuMemoryKind const kind : gpu_memory_kinds) {
    std::string const why = require_gpu_tools().why_no_memory(kind);
    offers.push_back(
        {fmt::format("GPU {}", name_of(kind)), why.empty(), why.empty() ? std::string(means_of(kind)) : why});
  }
  return offers;
}

struct SettingState {
  SettingInfo info;
  std::string value;
  bool valid = true;
};

SettingState state_of(SettingInfo const& info) {
  bool const number = info.range.find("..") != std::string_view::npos;
  try {
    return {info, number ? std::to_string(config_number(info.setting)) : config_text(info.setting)};
  } catch (InvalidArgument const& error) {
    return {info, error.what(), false};
  }
}

namespace libfabric = transport::libfabric;

// What the settings name may not be there: the table is then that of no wish, and says so.
libfabric::Report fabric() {
  try {
    return libfabric::report(libfabric::wish_of_environment());
  } catch (InvalidArgument const& error) {
    libfabric::Report found = libfabric::report({});
    for (libfabric::Nic& nic : found.nics) nic.why_not = "the settings name what is not here";
    found.why_none = error.what();
    return found;
  } catch (Error const& error) {
    return {.library = {}, .why_none = error.what(), .nics = {}};
  }
}

Offer between_nodes(libfabric::Report const& found) {
  std::vector<std::string> used;
  for (libfabric::Nic const& nic : found.nics)
    if (nic.chosen()) used.push_back(fmt::format("{} on {}", nic.provider, nic.name));
  if (!used.empty()) return {"libfabric", true, fmt::format("between nodes: {}", fmt::join(used, ", "))};
  return {"libfabric", false,
          fmt::format("between nodes: {}", found.why_none.empty() ? "no NIC reaches other nodes" : found.why_none)};
}

// How rows in memory of a GPU come to a NIC, and why so.
Offer gpu_rows(libfabric::Report const& found) {
  std::string const no_gpu = why_no_engine(EngineKind::cuda);
  if (!no_gpu.empty()) return {"GPU rows", false, no_gpu};
  bool const any = std::ranges::any_of(found.nics, &libfabric::Nic::chosen);
  if (!any) return {"GPU rows", false, "between nodes: no NIC is used"};
  return {"GPU rows", true,
          "between nodes: through pinned memory of the host, which any NIC reads (GPUDirect is not used); "
          "throughput mode"};
}

struct Info {
  Machine machine;
  Topology topology;
  std::vector<Offer> engines;
  std::vector<Offer> transports;
  libfabric::Report fabric;
  std::vector<Offer> memory;
  std::vector<SettingState> settings;
};

Info collect() {
  Info info{.machine = describe_machine(),
            .topology = read_topology(),
            .engines = {{"cpu", true, "SIMD target " + cpu::simd_target()}, cuda_engine()},
            .transports = {memfd()},
            .fabric = fabric(),
            .memory = {},
            .settings = {}};
  info.transports.push_back(between_nodes(info.fabric));
  if (gpu_tools() != nullptr) info.transports.push_back(gpu_rows(info.fabric));
  info.memory = gpu_memory();
  info.memory.insert(info.memory.begin(), {huge_pages(), numa_binding(info.topology)});
  for (SettingInfo const& setting : config_table()) info.settings.push_back(state_of(setting));
  return info;
}

std::string offers_text(char const* title, std::vector<Offer> const& offers) {
  std::string text = fmt::format("\n{}\n", title);
  for (Offer const& offer : offers)
    text += fmt::format("  {:<14}{:<5}{}\n", offer.name, offer.available ? "yes" : "no", offer.why);
  return text;
}

std::string topology_text(Info const& info) {
  Topology const& t = info.topology;
  std::string text = fmt::format(
      "machine\n  {}\n  {} MiB of memory, {} cores for this process\n"
      "  packages {}, cores {}, processing units {}, NUMA nodes {}\n",
      info.machine.cpu_model, info.machine.memory_bytes >> 20, info.machine.cores, t.packages, t.cores,
      t.processing_units, t.numa_nodes);
  for (Cache const& cache : t.caches)
    text += fmt::format("  {} cache: {} x {} KiB\n", cache.name, cache.count, cache.bytes >> 10);
  return text;
}

std::string fabric_text(libfabric::Report const& fabric) {
  std::string text = fmt::format("\nNICs, by libfabric {}\n", fabric.library);
  if (!fabric.why_none.empty()) text += fmt::format("  {}\n", fabric.why_none);
  for (libfabric::Nic const& nic : fabric.nics) {
    std::string const rate = nic.gigabits > 0 ? fmt::format(", {:g} Gbit/s", nic.gigabits) : "";
    std::string const use =
        fmt::format("would be used; counts by {}{}", nic.counts_remotely ? "immediates" : "messages", rate);
    text += fmt::format("  {:<14}{:<14}{:<26} {:<5}{}\n", nic.provider, nic.name, nic.address,
                        nic.chosen() ? "yes" : "no", nic.chosen() ? use : nic.why_not);
  }
  return text;
}

std::string to_text(Info const& info) {
  std::string text = topology_text(info) + offers_text("engines", info.engines) +
                     offers_text("transports", info.transports) + fabric_text(info.fabric) +
                     offers_text("memory", info.memory) + "\nsettings (environment variables)\n";
  for (SettingState const& state : info.settings) {
    text += fmt::format("  {:<34}{}{}\n      {}; {}; default {}\n", state.info.variable,
                        state.valid ? "" : "INVALID: ", state.value, state.info.doc, state.info.range,
                        state.info.fallback);
  }
  return text;
}

json offers_json(std::vector<Offer> const& offers) {
  json list = json::array();
  for (Offer const& offer : offers) {
    list.push_back({{"name", offer.name}, {"available", offer.available}, {"why", offer.why}});
  }
  return list;
}

json fabric_json(libfabric::Report const& fabric) {
  json nics = json::array();
  for (libfabric::Nic const& nic : fabric.nics) {
    nics.push_back({{"provider", nic.provider},
                    {"name", nic.name},
                    {"address", nic.address},
                    {"gigabits", nic.gigabits},
                    {"counts_remotely", nic.counts_remotely},
                    {"chosen", nic.chosen()},
                    {"why_not", nic.why_not}});
  }
  return {{"library", fabric.library}, {"why_none", fabric.why_none}, {"nics", nics}};
}

json settings_json(std::vector<SettingState> const& settings) {
  json list = json::array();
  for (SettingState const& state : settings) {
    list.push_back({{"variable", state.info.variable},
                    {"value", state.value},
                    {"valid", state.valid},
                    {"default", state.info.fallback},
                    {"range", state.info.range},
                    {"doc", state.info.doc}});
  }
  return list;
}

json to_json(Info const& info) {
  json caches = json::array();
  for (Cache const& cache : info.topology.caches) {
    caches.push_back({{"name", cache.name}, {"bytes", cache.bytes}, {"count", cache.count}});
  }
  return {{"schema", "switchyard-info/1"},
          {"machine", to_json(info.machine)},
          {"topology",
           {{"packages", info.topology.packages},
            {"cores", info.topology.cores},
            {"processing_units", info.topology.processing_units},
            {"numa_nodes", info.topology.numa_nodes},
            {"caches", caches}}},
          {"engines", offers_json(info.engines)},
          {"transports", offers_json(info.transports)},
          {"fabric", fabric_json(info.fabric)},
          {"memory", offers_json(info.memory)},
          {"settings", settings_json(info.settings)}};
}

}  // namespace

void run_info(bool as_json) {
  try {
    logger();  // warns of misspelt variables
  } catch (InvalidArgument const&) {
    // Its own setting is wrong, which the table shows.
  }
  Info const info = collect();
  print(stdout, as_json ? to_json(info).dump(2) + "\n" : to_text(info));
}

}  // namespace switchyard::cli
