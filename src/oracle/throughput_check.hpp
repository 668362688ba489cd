// Compares every value that dispatch and combine delivered with what it must be. Tensors lie in host memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "oracle/compare.hpp"
#include "oracle/expected.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::oracle {

struct DispatchTerms {
  int alignment = 1;  // of an expert's rows
  bool zero_padding = false;
  std::int64_t worst_rows = 0;  // of worst-case mode
  bool cached = false;
  bool with_ids = true;  // of a cached dispatch: ids and weights travel again
  EngineKind engine = EngineKind::automatic;
};

struct CombineTerms {
  int biases = 0;
  bool row_weights = false;
  bool topk_weights = false;
  bool weights_of_all_ranks = false;
};

// The checks of one rank. Each throws the first Mismatch. `data` must live on.
class ThroughputChecker {
 public:
  ThroughputChecker(Terms const& terms, DispatchTerms const& dispatch, JobData const& data, int rank);

  // The rows that arrive, in order, with those that only pad.
  [[nodiscard]] std::vector<Row> const& rows() const noexcept { return rows_; }

  void check_dispatch(Dispatched const& got) const;
  // What is known of the tensors without waiting.
  void check_shapes(Dispatched const& got) const;

  // Writes the expert outputs of all rows. Those that only pad hold NaN: nobody may read them.
  void write_outputs(void* x) const;
  void check_combine(Combined const& got, CombineTerms const& with) const;
  // `x`: [N, H] in the dtype of the outputs.
  void check_sums(void const* x, CombineTerms const& with = {}) const;
  void check_gradients(Tensor const& got, bool of_all_ranks = false) const;

 private:
  [[nodiscard]] bool has_ids() const { return !terms_.by_rank && !terms_.by_expert; }
  [[nodiscard]] bool has_weights() const { return !terms_.by_rank && terms_.weights; }
  [[nodiscard]] Place place(char const* what) const { return {what, rank_, terms_.seed}; }
  [[nodiscard]] Place place(char const* what, std::size_t row) const;

  void check_handle(Handle const& handle) const;
  void check_row(Dispatched const& got, std::size_t at) const;
  void check_payload(Dispatched const& got, std::size_t at) const;
  void check_ids(Tensor const& ids, std::size_t at) const;
  void check_weights(Tensor const& weights, std::size_t at) const;
  [[nodiscard]] std::vector<float> biases(TokenKey const& key, int count) const;
  [[nodiscard]] float gradient_of_all_ranks(TokenKey const& key, int slot) const;

  Terms terms_;
  DispatchTerms dispatch_;
  JobData const& data_;
  int rank_;
  std::vector<Row> rows_;
};

}  // namespace switchyard::oracle
