#include "cli/bench/inputs.hpp"

#include <algorithm>
#include <span>

#include "oracle/payload.hpp"

namespace switchyard::cli {

namespace {

// Row `index` of a matrix whose rows are `width` long.
template <typename T>
std::span<T> row(std::vector<T>& matrix, std::int64_t index, std::size_t width) {
  return std::span(matrix).subspan(static_cast<std::size_t>(index) * width, width);
}

}  // namespace

BenchInputs::BenchInputs(Problem const& problem, RoutingTable const& routing, int rank) : problem_(problem) {
  auto const tokens = static_cast<std::size_t>(problem.tokens);
  auto const x_width = static_cast<std::size_t>(problem.hidden) * size_of(problem.input_dtype());
  auto const groups = problem.payload == Payload::fp8 ? static_cast<std::size_t>(problem.scale_groups()) : 0;
  auto const top_k = static_cast<std::size_t>(problem.top_k);
  x_.resize(tokens * x_width);
  scales_.resize(tokens * groups);
  topk_idx_.resize(tokens * top_k);
  topk_weights_.resize(tokens * top_k);
  for (std::int64_t t = 0; t < problem.tokens; ++t) {
    oracle::TokenKey const key{rank, t};
    fill_token(problem, key, row(x_, t, x_width));
    if (groups > 0) fill_scales(problem, key, row(scales_, t, groups));
    fill_weights(problem, key, row(topk_weights_, t, top_k));
    std::ranges::copy(routing.token(rank, t), row(topk_idx_, t, top_k).begin());
  }
}

DispatchArgs BenchInputs::place(TensorMemory& memory) const {
  std::int64_t const tokens = problem_.tokens;
  DispatchArgs args;
  args.x = memory.place({x_.data(), problem_.input_dtype(), {tokens, problem_.hidden}});
  if (problem_.payload == Payload::fp8)
    args.scales = memory.place({scales_.data(), DType::f32, {tokens, problem_.scale_groups()}});
  args.topk_idx = memory.place({topk_idx_.data(), DType::i64, {tokens, problem_.top_k}});
  args.topk_weights = memory.place({topk_weights_.data(), DType::f32, {tokens, problem_.top_k}});
  args.cast_to_fp8 = problem_.payload == Payload::fp8_cast;
  args.layout = problem_.layout;
  return args;
}

}  // namespace switchyard::cli
