// The vector kernels of the CPU engine (Highway, dispatched at run time to the widest instruction set of the
// machine). Results do not depend on the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "switchyard/dtype.hpp"

namespace switchyard::cpu {

// Copies without polluting the cache (non-temporal stores where they pay). The stores are weakly ordered:
// call store_fence() before the release that publishes them. Any alignment, any size.
void stream_copy(std::byte* to, std::byte const* from, std::size_t bytes);

// Orders all earlier non-temporal stores of this thread before its later stores.
void store_fence() noexcept;

// out[i] = round(bias0[i] + bias1[i] + w[0] * rows[0][i] + w[1] * rows[1][i] + ...), accumulated in f32 in
// exactly that order, each product and each sum rounded on its own (no fused multiply-add), so that results
// are bitwise reproducible. The sum starts with its first term; without any it is +0.
struct RowSum {
  std::span<void const* const> rows;   // each `count` elements of `dtype`
  float const* row_weights = nullptr;  // one per row; null: all 1, no multiplication
  void const* bias0 = nullptr;         // `count` elements of `dtype`, or null
  void const* bias1 = nullptr;
  void* out = nullptr;
  bool out_is_read_next = false;  // then it stays in the cache; otherwise stores are non-temporal, see stream_copy
  std::size_t count = 0;
  DType dtype = DType::bf16;  // bf16, f16 or f32; rounding to nearest even, NaN stays NaN
  // What is likely to be summed next: the beginnings are prefetched.
  std::span<void const* const> next_rows{};
};
void sum_rows(RowSum const& sum);
// The same sum, not rounded: `out` takes `count` f32, by plain stores.
void sum_rows_to_f32(RowSum const& sum);

// out[i] = round(bias0[i] + bias1[i] + parts[0][i] + parts[1][i] + ...) in f32 in that order, as in RowSum: what
// nodes bring to the sum of one token. The part of the own node is a row of f32, or rows, whose own sum it is: so
// that sum never goes through memory.
struct NodeSum {
  static constexpr std::size_t none = ~std::size_t{0};

  std::span<void const* const> parts{};      // each `count` elements of `dtype`
  std::size_t own = none;                    // the part that is f32 in any case
  bool all_f32 = false;                      // all are
  std::span<void const* const> own_rows{};   // that part is their sum, by sum_rows_to_f32(); none: it is in `parts`
  float const* own_weights = nullptr;        // one per row; null: all 1
  std::span<void const* const> next_rows{};  // as in RowSum
  void const* bias0 = nullptr;               // `count` elements of `dtype`, or null
  void const* bias1 = nullptr;
  void* out = nullptr;  // `count` elements of `dtype`; non-temporal stores, see stream_copy
  std::size_t count = 0;
  DType dtype = DType::bf16;  // bf16, f16 or f32
};
void sum_nodes(NodeSum const& sum);

// Casts a row to e4m3 (OCP 8-bit, "fn": no infinity, largest 448) with one scale per 128 channels:
//   amax = max(1e-4, max |x|); scale = amax / 448 (f32); q = e4m3(x * (448 / amax)),
// nearest even, saturating at +-448; NaN becomes 0x7f with the sign of the input. A last group of fewer
// than 128 channels has a scale of its own. `values`: count bytes, `scales`: ceil(count / 128). With power_of_two
// the scale is the smallest power of two that is at least amax / 448, and q = e4m3(x / scale), the quotient exact.
// An infinite amax makes an infinite scale either way: infinities become NaN, all else 0.
struct Fp8Cast {
  void const* from = nullptr;  // `count` elements of `dtype` (bf16, f16 or f32)
  std::size_t count = 0;
  DType dtype = DType::bf16;
  std::uint8_t* values = nullptr;
  float* scales = nullptr;
  bool power_of_two = false;
};
void cast_to_fp8(Fp8Cast const& cast);

// Codes a row as LogFMT-10 (layout/logfmt.hpp): `coded` takes logfmt_row_bytes(count) bytes, wherever they lie.
struct LogfmtRow {
  void const* values = nullptr;  // `count` elements of `dtype` (bf16 or f16)
  std::size_t count = 0;
  DType dtype = DType::bf16;
  std::byte* coded = nullptr;
};
void encode_logfmt(LogfmtRow const& row);
void decode_logfmt(std::byte const* coded, std::size_t count, float* values);

// To bf16 or f16, rounded to nearest even; NaN stays NaN.
void narrow_row(float const* from, std::size_t count, DType dtype, std::byte* to);

}  // namespace switchyard::cpu
