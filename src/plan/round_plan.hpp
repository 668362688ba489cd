// What a round of a dispatch takes of the heap: the rows that it receives, and later what its combine stages. Pure
// functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

// What a combine stages of one round: rows, and what goes with each of them. Sizes are bytes a row; 0: none.
struct StagedShape {
  std::int64_t rows = 0;
  std::size_t row_bytes = 0;
  std::size_t topk_weight_bytes = 0;
  std::size_t row_weight_bytes = 0;
};

// Byte offsets from the start of the rounds' room.
struct StagedRows {
  std::size_t x = 0;
  std::size_t topk_weights = 0;
  std::size_t row_weights = 0;
  std::size_t bytes = 0;
};

StagedRows staged_rows(StagedShape const& shape);

// What all calls along one handle have in common.
struct RoundShape {
  std::int64_t hidden = 0;
  std::int64_t top_k = 0;  // 0: routed without experts
};

// Bytes that any call may take for a round of so many rows: the dispatch, cached dispatches and combines of the
// same handle, of whatever dtype. A round that fits by this measure never lacks memory later.
std::size_t round_bytes(RoundShape const& shape, std::int64_t rows);

}  // namespace switchyard
