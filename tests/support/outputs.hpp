// The check of what a rank received, what it passes to combine, and the check of what comes back.
#pragma once

#include <limits>
#include <vector>

#include "oracle/throughput_check.hpp"
#include "support/check.hpp"
#include "support/problem.hpp"

namespace switchyard::test {

using CombineExtras = oracle::CombineTerms;

enum class Travel { fresh, cached, cached_with_ids };

class DispatchChecker : public oracle::ThroughputChecker {
 public:
  DispatchChecker(Problem const& p, int rank, Travel travel = Travel::fresh, EngineKind engine = EngineKind::cpu)
      : ThroughputChecker(terms_of(p.the),
                          {.alignment = p.the.alignment,
                           .zero_padding = p.the.zero_padding,
                           .worst_rows = p.the.worst ? worst_rows(p) : 0,
                           .cached = travel != Travel::fresh,
                           .with_ids = travel != Travel::cached,
                           .engine = engine},
                          p, rank) {}
};

// The expert outputs of a rank and what goes with them. Rows that only pad hold NaN: nobody may read them.
class CombineInputs {
 public:
  CombineInputs(Problem const& problem, int rank, CombineExtras const& extras)
      : p_(problem), rank_(rank), extras_(extras), checker_(problem, rank) {
    for (int i = 0; i < extras.biases; ++i) biases_.push_back(bias(i));
    fill_weights();
  }
  CombineInputs(CombineInputs const&) = delete;
  CombineInputs& operator=(CombineInputs const&) = delete;

  // `x`: [n, H].
  void write_rows(void* x) const { checker_.write_outputs(x); }

  [[nodiscard]] std::int64_t rows() const { return std::ssize(checker_.rows()); }

  [[nodiscard]] CombineArgs args(ConstTensorView const& x, Handle const& handle) const {
    CombineArgs args;
    args.x = x;
    args.handle = handle;
    std::int64_t const tokens = p_.tokens(rank_);
    DType const dtype = p_.the.combine_dtype;
    if (!biases_.empty()) args.bias0 = {biases_[0].data(), dtype, {tokens, p_.the.hidden}};
    if (biases_.size() > 1) args.bias1 = {biases_[1].data(), dtype, {tokens, p_.the.hidden}};
    if (extras_.row_weights) args.row_weights = {row_weights_.data(), DType::f32, {rows()}};
    args.weights_of_all_ranks = extras_.weights_of_all_ranks;
    if (!extras_.topk_weights) return args;
    if (p_.the.expanded()) args.topk_weights = {gradients_.data(), DType::f32, {rows()}};
    if (!p_.the.expanded()) args.topk_weights = {gradients_.data(), DType::f32, {rows(), p_.the.top_k}};
    return args;
  }

  void check_result(Combined const& seen) const { checker_.check_combine(seen, extras_); }
  // `x`: [N, H].
  void check_sums(void const* x) const { checker_.check_sums(x, extras_); }
  void check_weights(Combined const& seen) const {
    check_equal(seen.topk_weights.given(), extras_.topk_weights, "combined topk_weights given");
    if (extras_.topk_weights) checker_.check_gradients(seen.topk_weights, extras_.weights_of_all_ranks);
  }

 private:
  [[nodiscard]] std::vector<std::byte> bias(int which) const {
    std::size_t const row = index(p_.the.hidden) * size_of(p_.the.combine_dtype);
    std::vector<std::byte> all(index(p_.tokens(rank_)) * row);
    for (std::int64_t t = 0; t < p_.tokens(rank_); ++t)
      p_.fill_bias(which, {rank_, t}, std::span(all).subspan(index(t) * row, row));
    return all;
  }

  void fill_weights() {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    int const slots = p_.the.expanded() ? 1 : p_.the.top_k;
    for (oracle::Row const& row : checker_.rows()) {
      row_weights_.push_back(row.pads() ? nan : p_.row_weight(rank_, row));
      for (int k = 0; k < slots; ++k) {
        int const slot = p_.the.expanded() ? row.slot : k;
        gradients_.push_back(row.pads() ? nan : p_.gradient(rank_, row, slot));
      }
    }
  }

  Problem const& p_;
  int rank_;
  CombineExtras extras_;
  DispatchChecker checker_;
  std::vector<std::vector<std::byte>> biases_;
  std::vector<float> row_weights_;
  std::vector<float> gradients_;
};

}  // namespace switchyard::test
