// Shapes of published models, as their config.json say.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace switchyard::cli {

struct Model {
  std::string_view name;
  std::int64_t hidden = 0;
  int top_k = 0;
  int experts = 0;          // routed ones
  int layers = 0;           // that have them
  int intermediate = 0;     // of an expert
  double weight_bytes = 0;  // of a parameter, as it is published

  // Of the routed experts of all layers: gate, up and down.
  [[nodiscard]] constexpr double expert_bytes() const noexcept {
    return 3.0 * static_cast<double>(hidden) * intermediate * experts * layers * weight_bytes;
  }
};

std::span<Model const> models();
// Throws InvalidArgument, which names what there is.
Model const& model(std::string_view name);

}  // namespace switchyard::cli
