// Sums expert outputs as they lie in bays, plain or coded.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "layout/logfmt.hpp"
#include "layout/routes.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::cpu {

// What all rows of a combine have in common.
struct OutputShape {
  std::size_t hidden = 0;
  DType dtype = DType::bf16;
  bool coded = false;

  // In a bay, and between nodes.
  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return coded ? logfmt_row_bytes(hidden) : hidden * size_of(dtype);
  }
};

inline OutputShape shape_of(LowLatencyCombineArgs const& args) noexcept {
  return {.hidden = static_cast<std::size_t>(args.x.size(2)),
          .dtype = args.x.dtype,
          .coded = args.coding == CombineCoding::logfmt10};
}

// Each worker has one. Rows are added up in the order in which they come, in f32.
class OutputSum {
 public:
  OutputSum(OutputShape const& shape, bool weighted, int most_terms)
      : shape_(shape),
        weighted_(weighted),
        decoded_(shape.coded ? static_cast<std::size_t>(most_terms) * shape.hidden : 0),
        sum_(shape.hidden) {}

  [[nodiscard]] OutputShape const& shape() const noexcept { return shape_; }
  void begin() noexcept { count_ = 0; }
  void add(std::byte const* row, float weight) noexcept {
    rows_[count_] = row;
    weights_[count_++] = weight;
  }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  // Rounded to the outputs' dtype, by stores past the caches.
  void finish(std::byte* to) { finish(to, false); }
  // As it travels between nodes: rounded, and then coded if the outputs are.
  void finish_for_the_way(std::byte* to) {
    if (!shape_.coded) return finish(to, true);
    plain_.resize(shape_.hidden * size_of(shape_.dtype));
    finish(plain_.data(), true);
    encode_logfmt({.values = plain_.data(), .count = shape_.hidden, .dtype = shape_.dtype, .coded = to});
  }
  // Valid until the next token.
  float* finish_f32() {
    if (shape_.coded) decode();
    RowSum sum = terms();
    sum.out = sum_.data();
    sum.dtype = shape_.coded ? DType::f32 : shape_.dtype;
    sum_rows_to_f32(sum);
    return sum_.data();
  }

 private:
  void finish(std::byte* to, bool is_read_next) {
    if (shape_.coded) return narrow_row(finish_f32(), shape_.hidden, shape_.dtype, to);
    RowSum sum = terms();
    sum.out = to;
    sum.out_is_read_next = is_read_next;
    sum.dtype = shape_.dtype;
    sum_rows(sum);
  }
  void decode() {
    float* to = decoded_.data();
    for (std::size_t term = 0; term < count_; ++term, to += shape_.hidden) {
      decode_logfmt(static_cast<std::byte const*>(rows_[term]), shape_.hidden, to);
      rows_[term] = to;
    }
  }
  [[nodiscard]] RowSum terms() const noexcept {
    return {.rows = std::span(rows_).first(count_),
            .row_weights = weighted_ ? weights_.data() : nullptr,
            .count = shape_.hidden};
  }

  OutputShape shape_;
  bool weighted_;
  std::array<void const*, max_top_k> rows_{};
  std::array<float, max_top_k> weights_{};
  std::size_t count_ = 0;
  std::vector<float> decoded_;
  std::vector<float> sum_;
  std::vector<std::byte> plain_;
};

// What nodes bring to the sum of one token, in the order in which they are added.
class NodeParts {
 public:
  NodeParts(OutputShape const& shape, int num_nodes)
      : shape_(shape),
        parts_(static_cast<std::size_t>(num_nodes)),
        decoded_(shape.coded ? parts_.size() * shape.hidden : 0) {}

  void begin() noexcept {
    count_ = 0;
    own_ = NodeSum::none;
  }
  // The own node's, which was not rounded.
  void add_own(float const* row) noexcept {
    own_ = count_;
    parts_[count_++] = row;
  }
  // As it travels.
  void add(std::byte const* row) {
    parts_[count_] = row;
    if (shape_.coded) {
      float* const to = decoded_.data() + count_ * shape_.hidden;
      decode_logfmt(row, shape_.hidden, to);
      parts_[count_] = to;
    }
    ++count_;
  }
  void finish(std::byte* to) const {
    sum_nodes({.parts = std::span(parts_).first(count_),
               .own = own_,
               .all_f32 = shape_.coded,
               .out = to,
               .count = shape_.hidden,
               .dtype = shape_.dtype});
  }

 private:
  OutputShape shape_;
  std::vector<void const*> parts_;
  std::size_t count_ = 0;
  std::size_t own_ = NodeSum::none;
  std::vector<float> decoded_;
};

}  // namespace switchyard::cpu
