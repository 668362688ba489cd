// Compares what a rank received, or got back, with the reference.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "support/check.hpp"
#include "support/reference_combine.hpp"

namespace switchyard::test {

// The first byte that differs, or -1.
inline std::int64_t first_difference(void const* seen, void const* expected, std::size_t bytes) {
  auto const* const a = static_cast<unsigned char const*>(seen);
  auto const* const b = static_cast<unsigned char const*>(expected);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (a[i] != b[i]) return static_cast<std::int64_t>(i);
  }
  return -1;
}

// Bitwise. `what` is called for the text only when they differ.
template <typename What>
void check_bytes(void const* seen, void const* expected, std::size_t bytes, What const& what) {
  if (bytes == 0 || std::memcmp(seen, expected, bytes) == 0) return;
  std::int64_t const at = first_difference(seen, expected, bytes);
  auto const byte = [at](void const* data) {
    return static_cast<unsigned>(static_cast<unsigned char const*>(data)[at]);
  };
  throw CheckFailed(
      text(what(), ": byte ", at, " of ", bytes, ": expected ", byte(expected), ", seen ", byte(seen)));
}

inline void check_shape(Tensor const& tensor, DType dtype, std::initializer_list<std::int64_t> shape,
                        char const* name) {
  check(tensor.given(), name, ": not given");
  check_equal(name_of(tensor.dtype()), name_of(dtype), name, " dtype");
  check_equal(tensor.view().ndim, static_cast<int>(shape.size()), name, " dimensions");
  std::int64_t contiguous = 1;
  int dim = tensor.view().ndim;
  for (auto extent = shape.end(); extent-- != shape.begin();) {
    --dim;
    check_equal(tensor.size(dim), *extent, name, " size of dimension ", dim);
    if (tensor.view().numel() > 0) check_equal(tensor.view().stride(dim), contiguous, name, " stride ", dim);
    contiguous *= *extent;
  }
}

inline std::int64_t id_at(Tensor const& ids, std::int64_t at) {
  return ids.dtype() == DType::i64 ? ids.data<std::int64_t>()[at] : ids.data<std::int32_t>()[at];
}

// Checks one rank's `Dispatched`. A cached dispatch has no ids and weights of its own.
class DispatchChecker {
 public:
  DispatchChecker(Problem const& problem, int rank, bool cached = false, EngineKind engine = EngineKind::cpu)
      : p_(problem),
        c_(problem.the),
        rank_(rank),
        cached_(cached),
        buffer_is_cpu_(engine == EngineKind::cpu),
        rows_(received_rows(problem, rank)) {}

  void check_all(Dispatched const& seen) const {
    check_shapes(seen);
    for (std::size_t i = 0; i < rows_.size(); ++i) check_row(seen, static_cast<std::int64_t>(i));
    if (!cached_) check_vector(seen.tokens_per_expert, tokens_per_expert(p_, rank_), "tokens_per_expert");
    check(seen.handle.given(), "handle: not given");
    // The CUDA engine's host never learns them in worst-case mode.
    if (!c_.worst || buffer_is_cpu_) {
      check_vector(seen.handle.tokens_per_expert(), padded_tokens_per_expert(p_, rank_),
                   "handle.tokens_per_expert");
      check_vector(seen.handle.real_tokens_per_expert(), real_tokens_per_expert(p_, rank_),
                   "handle.real_tokens_per_expert");
    }
    if (buffer_is_cpu_) check(!seen.handle.recv_counts().given(), "handle.recv_counts: given");
    check_equal(seen.handle.num_tokens(), p_.inputs[index(rank_)].tokens, "handle.num_tokens");
    if (!c_.worst) check_equal(seen.handle.num_recv_rows(), count(), "handle.num_recv_rows");
    if (!c_.worst && !c_.expanded()) {
      check_vector(seen.handle.recv_rows_end_by_rank(), rows_end_by_rank(p_, rank_), "recv_rows_end_by_rank");
    }
  }

  // What is known of the tensors without waiting.
  void check_shapes(Dispatched const& seen) const {
    check_shape(seen.x, c_.received_dtype(), {count(), c_.hidden}, "x");
    if (c_.fp8()) check_shape(seen.scales, DType::f32, {count(), c_.groups()}, "scales");
    check_equal(seen.scales.given(), c_.fp8(), "scales given");
    check_shape(seen.source_token, DType::i32, {count()}, "source_token");
    if (cached_) return;
    if (has_ids()) check_shape(seen.topk_idx, c_.id_dtype, {count(), c_.top_k}, "topk_idx");
    check_equal(seen.topk_idx.given(), has_ids(), "topk_idx given");
    check_equal(seen.topk_weights.given(), has_weights(), "topk_weights given");
    if (!has_weights()) return;
    if (c_.expanded()) check_shape(seen.topk_weights, DType::f32, {count()}, "topk_weights");
    if (!c_.expanded()) check_shape(seen.topk_weights, DType::f32, {count(), c_.top_k}, "topk_weights");
  }

 private:
  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(rows_.size()); }
  [[nodiscard]] bool has_ids() const { return !c_.by_rank && !c_.expanded(); }
  [[nodiscard]] bool has_weights() const { return !c_.by_rank && c_.weights; }

  static void check_vector(std::vector<std::int64_t> const& seen, std::vector<std::int64_t> const& expected,
                           char const* name) {
    check_equal(seen.size(), expected.size(), name, " size");
    for (std::size_t i = 0; i < seen.size(); ++i) check_equal(seen[i], expected[i], name, "[", i, "]");
  }

  [[nodiscard]] std::string describe(std::int64_t at, char const* name) const {
    Row const& row = rows_[index(at)];
    return text(name, " of row ", at, " of ", count(), " (source ", row.source, " token ", row.token, " slot ",
                row.slot, ")");
  }

  void check_row(Dispatched const& seen, std::int64_t at) const {
    Row const& row = rows_[index(at)];
    auto const token = static_cast<std::int32_t>(row.token);
    check_equal(seen.source_token.data<std::int32_t>()[at], token, describe(at, "source_token"));
    if (row.pads() && c_.zero_padding) check_zero(seen, at);
    if (!row.pads()) check_payload(seen, at, token_data(p_, row));
    if (!cached_ && has_ids()) check_ids(seen, at);
    if (!cached_ && has_weights()) check_weights(seen, at);
  }

  void check_payload(Dispatched const& seen, std::int64_t at, TokenData const& expected) const {
    std::byte const* const x = seen.x.data<std::byte>() + index(at) * expected.x.size();
    check_bytes(x, expected.x.data(), expected.x.size(), [&] { return describe(at, "x"); });
    if (expected.scales.empty()) return;
    float const* const scales = seen.scales.data<float>() + at * c_.groups();
    check_bytes(scales, expected.scales.data(), expected.scales.size() * 4, [&] { return describe(at, "scales"); });
  }

  void check_zero(Dispatched const& seen, std::int64_t at) const {
    std::size_t const bytes = index(c_.hidden) * size_of(c_.received_dtype());
    TokenData const zero{std::vector<std::byte>(bytes), std::vector<float>(c_.fp8() ? index(c_.groups()) : 0)};
    check_payload(seen, at, zero);
  }

  void check_ids(Dispatched const& seen, std::int64_t at) const {
    for (int k = 0; k < c_.top_k; ++k) {
      std::int64_t const expected = local_id(p_, rows_[index(at)], rank_, k);
      check_equal(id_at(seen.topk_idx, at * c_.top_k + k), expected, describe(at, "topk_idx"), " slot ", k);
    }
  }

  void check_weights(Dispatched const& seen, std::int64_t at) const {
    Row const& row = rows_[index(at)];
    float const* const weights = seen.topk_weights.data<float>();
    if (c_.expanded()) {
      float const expected = row.pads() ? 0.0F : weight_of(p_, row, row.slot);
      if (!row.pads() || c_.zero_padding) check_equal(weights[at], expected, describe(at, "topk_weights"));
      return;
    }
    for (int k = 0; k < c_.top_k; ++k) {
      bool const ours = local_id(p_, row, rank_, k) >= 0;
      float const expected = ours ? weight_of(p_, row, k) : 0.0F;
      check_equal(weights[at * c_.top_k + k], expected, describe(at, "topk_weights"), " slot ", k);
    }
  }

  Problem const& p_;
  Case const& c_;
  int rank_;
  bool cached_;
  bool buffer_is_cpu_;
  std::vector<Row> rows_;
};

// `x`: [N, H] of `rank`.
inline void check_combined_x(Problem const& p, int rank, void const* x, CombineExtras const& extras) {
  std::vector<std::byte> const expected = combined_x(p, rank, extras);
  std::size_t const row = index(p.the.hidden) * size_of(p.the.combine_dtype);
  for (std::size_t t = 0; t < index(p.inputs[index(rank)].tokens); ++t) {
    void const* const seen = static_cast<std::byte const*>(x) + t * row;
    check_bytes(seen, expected.data() + t * row, row, [t] { return text("combined x of token ", t); });
  }
}

inline void check_combined_weights(Problem const& p, int rank, Tensor const& seen) {
  std::vector<float> const expected = combined_weights(p, rank);
  check_shape(seen, DType::f32, {p.inputs[index(rank)].tokens, p.the.top_k}, "combined topk_weights");
  for (std::size_t i = 0; i < expected.size(); ++i) {
    check_equal(seen.data<float>()[i], expected[i], "combined topk_weights[", i / index(p.the.top_k), ", ",
                i % index(p.the.top_k), "]");
  }
}

}  // namespace switchyard::test
