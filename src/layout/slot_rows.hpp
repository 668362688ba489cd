// The rows of a low-latency dispatch as they travel: the same for both engines, and on all ranks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout/fp8.hpp"
#include "layout/slots.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard {

struct SlotRows {
  SlotLayout layout = SlotLayout::expert_major;
  DType dtype = DType::bf16;        // as received
  DType scale_dtype = DType::f32;   // likewise
  std::int64_t elements = 0;        // H, or B
  std::int64_t scale_elements = 0;  // of a row; 0: it has none
  bool weights = false;

  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return static_cast<std::size_t>(elements) * size_of(dtype);
  }
  [[nodiscard]] std::size_t scale_bytes() const noexcept {
    return static_cast<std::size_t>(scale_elements) * size_of(scale_dtype);
  }
  // Scales of adjacent rows lie beside one another.
  [[nodiscard]] bool column_major() const noexcept {
    return layout == SlotLayout::expert_major && scale_dtype != DType::u8;
  }
};

inline SlotRows slot_rows_of(LowLatencyDispatchArgs const& args) noexcept {
  SlotRows rows{.layout = args.layout,
                .dtype = args.cast == SendCast::none ? args.x.dtype : DType::f8e4m3,
                .elements = args.x.size(1),
                .weights = args.topk_weights.given()};
  std::int64_t const groups = scale_groups(rows.elements);
  if (rows.dtype == DType::f8e4m3) rows.scale_elements = groups;
  if (args.cast == SendCast::fp8_ue8m0) {
    rows.scale_dtype = DType::i32;
    rows.scale_elements = (groups + 3) / 4;
  }
  if (args.x.dtype == DType::u8 && args.scales.given()) {
    rows.scale_dtype = DType::u8;
    rows.scale_elements = args.scales.size(1);
  }
  return rows;
}

// What ranks compare. The dtype is the caller's, before a cast.
inline std::uint64_t dispatch_digest(LowLatencyDispatchArgs const& args) noexcept {
  SlotRows const rows = slot_rows_of(args);
  return digest_of({.operation = 1,
                    .layout = static_cast<std::uint64_t>(args.layout),
                    .row_bytes = rows.row_bytes(),
                    .scale_bytes = rows.scale_bytes(),
                    .dtype = static_cast<std::uint64_t>(args.x.dtype),
                    .cast = static_cast<std::uint64_t>(args.cast),
                    .weights = rows.weights ? 1U : 0U});
}

inline std::uint64_t combine_digest(LowLatencyCombineArgs const& args, SlotLayout layout) noexcept {
  return digest_of({.operation = 2,
                    .layout = static_cast<std::uint64_t>(layout),
                    .row_bytes = static_cast<std::uint64_t>(args.x.size(2)) * size_of(args.x.dtype),
                    .dtype = static_cast<std::uint64_t>(args.x.dtype),
                    .cast = static_cast<std::uint64_t>(args.coding)});
}

}  // namespace switchyard
