// The options of `switchyard plan`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace switchyard::cli {

enum class PlanRouting : std::uint8_t {
  uniform,
  group_limited,
  zipf,
  balanced,  // the slots of a token are as far apart as experts are, and each expert gets the same
  replay,    // recorded ids
  loads,     // drawn by the experts' loads
};
constexpr std::string_view name_of(PlanRouting routing) noexcept {
  switch (routing) {
    case PlanRouting::uniform: return "uniform";
    case PlanRouting::group_limited: return "group-limited";
    case PlanRouting::zipf: return "zipf";
    case PlanRouting::balanced: return "balanced";
    case PlanRouting::replay: return "replay";
    case PlanRouting::loads: return "loads";
  }
  return "?";
}

struct PlanOptions {
  std::string machine = "h100";
  bool machine_given = false;
  std::string cluster;  // a file
  std::string library = "switchyard";
  std::string mode = "both";
  std::string model = "deepseek-v3";
  std::int64_t hidden = 0;  // 0: the model's
  int top_k = 0;
  int experts = 0;
  std::string dtype = "fp8";  // of a dispatch
  std::vector<int> ranks{};   // empty: 8 to 2048, as far as there are GPUs
  std::vector<std::int64_t> tokens{128, 4096};
  std::vector<int> sms{0};
  PlanRouting routing = PlanRouting::uniform;
  std::string routing_file;  // .npy
  std::string loads_file;    // JSON
  std::uint64_t seed = 1;
  std::string json;  // a file; "-": standard output
  std::string plot;  // a file
};

void add_plan_options(CLI::App& app, PlanOptions& options);

}  // namespace switchyard::cli
