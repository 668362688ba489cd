// What one rank hands to dispatch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cli/bench/memory.hpp"
#include "oracle/problem.hpp"
#include "oracle/routing.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::cli {

using oracle::Payload;
using oracle::Problem;
using oracle::RoutingTable;

class BenchInputs {
 public:
  BenchInputs(Problem const& problem, RoutingTable const& routing, int rank);
  // Where the engine can read them; `memory` and this object must live on.
  [[nodiscard]] DispatchArgs place(TensorMemory& memory) const;

 private:
  Problem problem_;
  std::vector<std::byte> x_;
  std::vector<float> scales_;
  std::vector<std::int64_t> topk_idx_;
  std::vector<float> topk_weights_;
};

}  // namespace switchyard::cli
