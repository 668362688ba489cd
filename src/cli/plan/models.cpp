#include "cli/plan/models.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "base/nearest.hpp"

namespace switchyard::cli {

namespace {

constexpr std::array known{Model{.name = "deepseek-v3",
                                 .hidden = 7168,
                                 .top_k = 8,
                                 .experts = 256,
                                 .layers = 58,
                                 .intermediate = 2048,
                                 .weight_bytes = 1},
                           Model{.name = "kimi-k2",
                                 .hidden = 7168,
                                 .top_k = 8,
                                 .experts = 384,
                                 .layers = 60,
                                 .intermediate = 2048,
                                 .weight_bytes = 1},
                           Model{.name = "qwen3-235b",
                                 .hidden = 4096,
                                 .top_k = 8,
                                 .experts = 128,
                                 .layers = 94,
                                 .intermediate = 1536,
                                 .weight_bytes = 2},
                           Model{.name = "qwen3-30b",
                                 .hidden = 2048,
                                 .top_k = 8,
                                 .experts = 128,
                                 .layers = 48,
                                 .intermediate = 768,
                                 .weight_bytes = 2},
                           Model{.name = "glm-4.5",
                                 .hidden = 5120,
                                 .top_k = 8,
                                 .experts = 160,
                                 .layers = 89,
                                 .intermediate = 1536,
                                 .weight_bytes = 2},
                           Model{.name = "gpt-oss-120b",
                                 .hidden = 2880,
                                 .top_k = 4,
                                 .experts = 128,
                                 .layers = 36,
                                 .intermediate = 2880,
                                 .weight_bytes = 0.53},
                           Model{.name = "gpt-oss-20b",
                                 .hidden = 2880,
                                 .top_k = 4,
                                 .experts = 32,
                                 .layers = 24,
                                 .intermediate = 2880,
                                 .weight_bytes = 0.53},
                           Model{.name = "mixtral-8x7b",
                                 .hidden = 4096,
                                 .top_k = 2,
                                 .experts = 8,
                                 .layers = 32,
                                 .intermediate = 14336,
                                 .weight_bytes = 2}};

}  // namespace

std::span<Model const> models() {
  return known;
}

Model const& model(std::string_view name) {
  auto const found = std::ranges::find(known, name, &Model::name);
  if (found == known.end()) {
    std::vector<std::string_view> names;
    std::string all;
    for (Model const& each : known) {
      names.push_back(each.name);
      all += (all.empty() ? "" : ", ") + std::string(each.name);
    }
    require(false, "--model: expected one of {}, seen '{}'{}", all, name, did_you_mean(name, names));
  }
  return *found;
}

}  // namespace switchyard::cli
