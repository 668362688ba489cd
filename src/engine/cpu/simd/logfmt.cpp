// LogFMT-10 rows; the arithmetic is layout/logfmt.hpp's, compiled for each target. Compiled with -ffp-contract=off,
// as simd_sum.cpp is.
#include "engine/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/simd/logfmt.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <cstring>
#include <string>

#include "engine/cpu/simd/elements.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"
#include "layout/logfmt.hpp"
#include "switchyard/error.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

inline constexpr std::size_t tile_elements = logfmt_tile;

// A whole tile, of which `count` elements are there; the others are zeros.
template <class Element>
HWY_INLINE void widen_tile(std::byte const* from, std::size_t count, float* to) {
  alignas(64) std::byte padded[tile_elements * Element::size] = {};
  if (count < tile_elements) {
    std::memcpy(padded, from, count * Element::size);
    from = padded;
  }
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  for (std::size_t at = 0; at < tile_elements; at += block_elements()) {
    Element::load(from + at * Element::size, a, b);
    Element::put_in_order(a, b, to + at);
  }
}

template <class Element>
HWY_INLINE void encode_row(LogfmtRow const& row) {
  auto const* const from = static_cast<std::byte const*>(row.values);
  std::size_t const scales = logfmt_scales_at(row.count);
  for (std::size_t tile = 0; tile < logfmt_tiles(row.count); ++tile) {
    std::size_t const at = tile * tile_elements;
    float values[tile_elements];
    widen_tile<Element>(from + at * Element::size, std::min(tile_elements, row.count - at), values);
    auto* const codes = reinterpret_cast<std::uint8_t*>(row.coded + tile * logfmt_tile_bytes);
    LogfmtScale const scale = logfmt_encode_tile(values, logfmt_tile, codes);
    std::memcpy(row.coded + scales + tile * sizeof scale, &scale, sizeof scale);
  }
  std::size_t const end = scales + logfmt_tiles(row.count) * sizeof(LogfmtScale);
  std::memset(row.coded + end, 0, logfmt_row_bytes(row.count) - end);
}

void encode_bf16(LogfmtRow const& row) {
  encode_row<Bf16>(row);
}
void encode_f16(LogfmtRow const& row) {
  encode_row<F16>(row);
}

void decode_row(std::byte const* coded, std::size_t count, float* values) {
  std::size_t const scales = logfmt_scales_at(count);
  for (std::size_t tile = 0; tile < logfmt_tiles(count); ++tile) {
    std::size_t const at = tile * tile_elements;
    LogfmtScale scale;
    std::memcpy(&scale, coded + scales + tile * sizeof scale, sizeof scale);
    logfmt_decode_tile(scale, reinterpret_cast<std::uint8_t const*>(coded + tile * logfmt_tile_bytes), values + at,
                       static_cast<int>(std::min(tile_elements, count - at)));
  }
}

template <class Element>
HWY_INLINE void narrow(float const* from, std::size_t count, std::byte* to) {
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  std::size_t at = 0;
  for (; count - at >= block_elements(); at += block_elements()) {
    Element::take_in_order(from + at, a, b);
    Element::template store<false>(canonical_nan(a), canonical_nan(b), to + at * Element::size);
  }
  if (at == count) return;
  alignas(64) float padded[max_block_bytes / sizeof(float)] = {};
  alignas(64) std::byte narrowed[max_block_bytes];
  std::memcpy(padded, from + at, (count - at) * sizeof(float));
  Element::take_in_order(padded, a, b);
  Element::template store<false>(canonical_nan(a), canonical_nan(b), narrowed);
  std::memcpy(to + at * Element::size, narrowed, (count - at) * Element::size);
}

void narrow_bf16(float const* from, std::size_t count, std::byte* to) {
  narrow<Bf16>(from, count, to);
}
void narrow_f16(float const* from, std::size_t count, std::byte* to) {
  narrow<F16>(from, count, to);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(encode_bf16);
HWY_EXPORT(encode_f16);
HWY_EXPORT(decode_row);
HWY_EXPORT(narrow_bf16);
HWY_EXPORT(narrow_f16);

void encode_logfmt(LogfmtRow const& row) {
  switch (row.dtype) {
    case DType::bf16: return HWY_DYNAMIC_DISPATCH(encode_bf16)(row);
    case DType::f16: return HWY_DYNAMIC_DISPATCH(encode_f16)(row);
    default: throw InvalidArgument("encode_logfmt: no coding of " + std::string(name_of(row.dtype)));
  }
}

void decode_logfmt(std::byte const* coded, std::size_t count, float* values) {
  HWY_DYNAMIC_DISPATCH(decode_row)(coded, count, values);
}

void narrow_row(float const* from, std::size_t count, DType dtype, std::byte* to) {
  switch (dtype) {
    case DType::bf16: return HWY_DYNAMIC_DISPATCH(narrow_bf16)(from, count, to);
    case DType::f16: return HWY_DYNAMIC_DISPATCH(narrow_f16)(from, count, to);
    default: throw InvalidArgument("narrow_row: not to " + std::string(name_of(dtype)));
  }
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
