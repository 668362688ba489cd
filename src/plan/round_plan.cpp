#include "plan/round_plan.hpp"

#include <algorithm>

#include "layout/fp8.hpp"
#include "layout/receive_block.hpp"

namespace switchyard {

StagedRows staged_rows(StagedShape const& shape) {
  auto const rows = static_cast<std::size_t>(shape.rows);
  StagedRows at;
  at.topk_weights = align_up(at.x + rows * shape.row_bytes, part_alignment);
  at.row_weights = align_up(at.topk_weights + rows * shape.topk_weight_bytes, part_alignment);
  at.bytes = align_up(at.row_weights + rows * shape.row_weight_bytes, part_alignment);
  return at;
}

std::size_t round_bytes(RoundShape const& shape, std::int64_t rows) {
  // The widest of each part: f32 rows, scales as FP8 has them, i64 ids. In the expanded layout a row has one
  // weight.
  std::size_t const row = static_cast<std::size_t>(shape.hidden) * sizeof(float);
  std::size_t const weights = static_cast<std::size_t>(std::max<std::int64_t>(shape.top_k, 1)) * sizeof(float);
  ReceiveShape const received{.rows = rows,
                              .row_bytes = row,
                              .scale_bytes = static_cast<std::size_t>(scale_groups(shape.hidden)) * sizeof(float),
                              .topk_bytes = static_cast<std::size_t>(shape.top_k) * sizeof(std::int64_t),
                              .weight_bytes = weights};
  StagedShape const staged{
      .rows = rows, .row_bytes = row, .topk_weight_bytes = weights, .row_weight_bytes = sizeof(float)};
  return std::max(receive_block(received).bytes, staged_rows(staged).bytes);
}

}  // namespace switchyard
