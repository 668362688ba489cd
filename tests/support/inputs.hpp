// The arguments that a rank passes to dispatch, in the memory layout that the case asks for.
#pragma once

#include <algorithm>
#include <vector>

#include "support/problem.hpp"

namespace switchyard::test {

class RankInputs {
 public:
  RankInputs(Problem const& problem, int rank) : p_(problem), in_(problem.inputs[index(rank)]) {
    place_x();
    place_scales();
    ids32_.assign(in_.ids.begin(), in_.ids.end());
  }
  RankInputs(RankInputs const&) = delete;
  RankInputs& operator=(RankInputs const&) = delete;

  [[nodiscard]] DispatchArgs args() const {
    DispatchArgs args;
    Case const& c = p_.the;
    set_payload(args);
    if (c.by_rank) args.token_in_rank = {in_.ranks.data(), DType::u8, {in_.tokens, c.ranks}};
    if (!c.by_rank) args.topk_idx = ids();
    if (!c.by_rank && c.weights) args.topk_weights = {in_.weights.data(), DType::f32, {in_.tokens, c.top_k}};
    args.layout = c.layout;
    args.expert_alignment = c.alignment;
    args.zero_padding = c.zero_padding;
    if (c.worst) args.num_worst_tokens = worst_rows(p_);
    return args;
  }

  // With the routing of an earlier dispatch.
  [[nodiscard]] DispatchArgs cached_args(Handle const& handle) const {
    DispatchArgs args;
    set_payload(args);
    args.handle = handle;
    args.layout = p_.the.layout;
    args.expert_alignment = p_.the.alignment;
    args.zero_padding = p_.the.zero_padding;
    return args;
  }

  [[nodiscard]] ConstTensorView ids() const {
    void const* const data =
        p_.the.id_dtype == DType::i64 ? static_cast<void const*>(in_.ids.data()) : ids32_.data();
    return {data, p_.the.id_dtype, {in_.tokens, p_.the.top_k}};
  }

 private:
  void set_payload(DispatchArgs& args) const {
    args.x = {x_.data(), p_.the.dtype, {in_.tokens, p_.the.hidden}};
    args.x.strides[0] = p_.the.hidden + p_.the.extra_stride;
    args.cast_to_fp8 = p_.the.cast;
    if (p_.the.dtype != DType::f8e4m3) return;
    args.scales = {scales_.data(), DType::f32, {in_.tokens, p_.the.groups()}};
    if (p_.the.scales_by_column) args.scales.strides = {1, in_.tokens, 0};
  }

  void place_x() {
    std::size_t const row = index(p_.the.hidden) * size_of(p_.the.dtype);
    std::size_t const stride = index(p_.the.hidden + p_.the.extra_stride) * size_of(p_.the.dtype);
    x_.assign(index(in_.tokens) * stride, std::byte{0xee});
    for (std::size_t t = 0; t < index(in_.tokens); ++t) {
      std::copy_n(in_.x.begin() + static_cast<std::ptrdiff_t>(t * row), row,
                  x_.begin() + static_cast<std::ptrdiff_t>(t * stride));
    }
  }

  void place_scales() {
    scales_ = in_.scales;
    if (scales_.empty() || !p_.the.scales_by_column) return;
    for (std::int64_t t = 0; t < in_.tokens; ++t) {
      for (std::int64_t g = 0; g < p_.the.groups(); ++g) {
        scales_[index(g * in_.tokens + t)] = in_.scales[index(t * p_.the.groups() + g)];
      }
    }
  }

  Problem const& p_;
  RankInput const& in_;
  std::vector<std::byte> x_;
  std::vector<float> scales_;
  std::vector<std::int32_t> ids32_;
};

}  // namespace switchyard::test
