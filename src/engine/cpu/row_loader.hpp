// Reads a caller's rows as they travel: the bytes that lie there, or what a cast makes of them. For both modes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "switchyard/low_latency.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::cpu {

struct RowSource {
  ConstTensorView x{};  // [N, H], rows may be strided
  // [N, G] f32 with any strides, [N, S] words (i32) that travel in their place, or [N, S] u8 with adjacent bytes.
  ConstTensorView scales{};
  SendCast cast = SendCast::none;
};

// Valid until the loader loads another row.
struct LoadedRow {
  std::byte const* x = nullptr;
  std::byte const* scales = nullptr;  // null: the row has none
};

// Each worker has one, since it has room for the row that it works on.
class RowLoader {
 public:
  explicit RowLoader(RowSource const& source);

  LoadedRow load(std::int64_t token);

 private:
  [[nodiscard]] std::byte const* row_at(std::int64_t token) const;
  [[nodiscard]] std::byte const* scales_at(std::int64_t token);

  RowSource source_;
  std::vector<std::uint8_t> values_;   // of a cast
  std::vector<float> scales_;          // of a cast, or gathered
  std::vector<std::uint32_t> packed_;  // exponents of scales, four to a word
};

}  // namespace switchyard::cpu
