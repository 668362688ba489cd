// What a rank passes to combine, and the check of what comes back.
#pragma once

#include <cstring>
#include <limits>
#include <vector>

#include "support/compare.hpp"

namespace switchyard::test {

// The expert outputs of a rank and what goes with them. Rows that only pad hold NaN: nobody may read them.
class CombineInputs {
 public:
  CombineInputs(Problem const& problem, int rank, CombineExtras const& extras)
      : p_(problem), rank_(rank), extras_(extras), rows_(received_rows(problem, rank)) {
    for (int i = 0; i < extras.biases; ++i) biases_.push_back(bias_of(p_, rank, i));
    fill_weights();
  }
  CombineInputs(CombineInputs const&) = delete;
  CombineInputs& operator=(CombineInputs const&) = delete;

  // `x`: [n, H].
  void write_rows(void* x) const {
    std::size_t const bytes = index(p_.the.hidden) * size_of(p_.the.combine_dtype);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      std::vector<std::byte> row(bytes, std::byte{0xff});
      if (!rows_[i].pads()) row = expert_output(p_, rank_, rows_[i]);
      std::memcpy(static_cast<std::byte*>(x) + i * bytes, row.data(), bytes);
    }
  }

  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(rows_.size()); }

  [[nodiscard]] CombineArgs args(ConstTensorView const& x, Handle const& handle) const {
    CombineArgs args;
    args.x = x;
    args.handle = handle;
    std::int64_t const tokens = p_.inputs[index(rank_)].tokens;
    DType const dtype = p_.the.combine_dtype;
    if (!biases_.empty()) args.bias0 = {biases_[0].data(), dtype, {tokens, p_.the.hidden}};
    if (biases_.size() > 1) args.bias1 = {biases_[1].data(), dtype, {tokens, p_.the.hidden}};
    if (extras_.row_weights) args.row_weights = {row_weights_.data(), DType::f32, {rows()}};
    if (!extras_.topk_weights) return args;
    if (p_.the.expanded()) args.topk_weights = {gradients_.data(), DType::f32, {rows()}};
    if (!p_.the.expanded()) args.topk_weights = {gradients_.data(), DType::f32, {rows(), p_.the.top_k}};
    return args;
  }

  void check_result(Combined const& seen) const {
    check_shape(seen.x, p_.the.combine_dtype, {p_.inputs[index(rank_)].tokens, p_.the.hidden}, "combined x");
    check_combined_x(p_, rank_, seen.x.data<void>(), extras_);
    check_weights(seen);
  }

  void check_weights(Combined const& seen) const {
    check_equal(seen.topk_weights.given(), extras_.topk_weights, "combined topk_weights given");
    if (extras_.topk_weights) check_combined_weights(p_, rank_, seen.topk_weights);
  }

 private:
  void fill_weights() {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    int const slots = p_.the.expanded() ? 1 : p_.the.top_k;
    for (Row const& row : rows_) {
      row_weights_.push_back(row.pads() ? nan : row_weight(p_, rank_, row));
      for (int k = 0; k < slots; ++k) {
        int const slot = p_.the.expanded() ? row.slot : k;
        gradients_.push_back(row.pads() ? nan : weight_gradient(p_, rank_, row, slot));
      }
    }
  }

  Problem const& p_;
  int rank_;
  CombineExtras extras_;
  std::vector<Row> rows_;
  std::vector<std::vector<std::byte>> biases_;
  std::vector<float> row_weights_;
  std::vector<float> gradients_;
};

}  // namespace switchyard::test
