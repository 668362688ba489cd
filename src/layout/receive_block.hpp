// Where the parts of a dispatch's result lie in the block that the receiver allocates. Source and receiver
// compute the same layout from the same numbers, so only the block's offset travels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

inline constexpr std::size_t part_alignment = 128;
// What describes the rows begins at a page of its own, so that it can be kept without the rows.
inline constexpr std::size_t description_alignment = 4096;
// The rows of a result, and the slots of a frame, are numbered in 32 bits.
inline constexpr std::int64_t max_result_rows = 0x7fffffff;

constexpr std::size_t align_up(std::size_t value, std::size_t alignment) noexcept {
  return (value + alignment - 1) / alignment * alignment;
}

struct ReceiveShape {
  std::int64_t rows = 0;
  std::size_t row_bytes = 0;     // payload of a row
  std::size_t scale_bytes = 0;   // scales of a row; 0: none
  std::size_t topk_bytes = 0;    // local expert ids of a row; 0: none
  std::size_t weight_bytes = 0;  // top-k weights of a row; 0: none
};

// Byte offsets from the start of the block.
struct ReceiveBlock {
  std::size_t x = 0;
  std::size_t scales = 0;
  std::size_t description = 0;  // where what describes the rows begins
  std::size_t topk_idx = 0;
  std::size_t topk_weights = 0;
  std::size_t source_token = 0;
  std::size_t bytes = 0;
};

constexpr ReceiveBlock receive_block(ReceiveShape const& shape) noexcept {
  ReceiveBlock block;
  std::size_t end = 0;
  auto const place = [&](std::size_t bytes_per_row) {
    std::size_t const at = end;
    end = align_up(at + static_cast<std::size_t>(shape.rows) * bytes_per_row, part_alignment);
    return at;
  };
  block.x = place(shape.row_bytes);
  block.scales = place(shape.scale_bytes);
  block.description = end = align_up(end, description_alignment);
  block.topk_idx = place(shape.topk_bytes);
  block.topk_weights = place(shape.weight_bytes);
  block.source_token = place(sizeof(std::int32_t));
  block.bytes = end;
  return block;
}

}  // namespace switchyard
