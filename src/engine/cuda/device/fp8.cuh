// Casting to e4m3, with the same bits as engine/cpu/simd/cast.cpp: the amax of a group is at least 1e-4,
// scale = amax / 448, and q = e4m3(x * (448 / amax)). Magnitudes are compared as bits, which order as the numbers
// do, with infinity and then NaN last.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>

namespace switchyard::cuda {

inline constexpr int fp8_group = 128;
inline constexpr std::uint32_t infinity_bits = 0x7f800000;

__device__ inline std::uint32_t smallest_amax_bits() {
  return __float_as_uint(1e-4F);
}

// The larger of `largest` and the bits of |value|. A NaN counts only if `with_nan` holds.
__device__ inline std::uint32_t larger_bits(std::uint32_t largest, float value, bool with_nan) {
  std::uint32_t const bits = __float_as_uint(value) & 0x7fffffffU;
  return with_nan || bits <= infinity_bits ? max(largest, bits) : largest;
}

struct Fp8Scaling {
  float scale;   // the receiver multiplies codes by it
  float factor;  // values are multiplied by it before they are rounded
  bool finite;   // no value of the group is infinite or NaN
};

__device__ inline Fp8Scaling scaling_of(std::uint32_t amax_bits, bool finite) {
  float const amax = __uint_as_float(amax_bits);
  return {__fdiv_rn(amax, 448.0F), __fdiv_rn(448.0F, amax), finite};
}

// The scaling by the least power of two that is not below `scaling`'s scale.
__device__ inline Fp8Scaling rounded_up(Fp8Scaling const& scaling) {
  std::uint32_t const bits = __float_as_uint(scaling.scale);
  std::uint32_t const exponent = (bits >> 23) + ((bits & 0x7fffffU) != 0 ? 1 : 0);
  float const factor = exponent >= 255 ? 0.0F : __uint_as_float((254 - exponent) << 23);
  return {__uint_as_float(exponent << 23), factor, scaling.finite};
}

__device__ inline std::uint8_t encode_fp8(float value, float factor) {
  float const scaled = __fmul_rn(value, factor);
  std::uint8_t const sign = static_cast<std::uint8_t>(__float_as_uint(value) >> 24 & 0x80);
  if (scaled != scaled) return sign | 0x7f;
  auto const code = __nv_cvt_float_to_fp8(fabsf(scaled), __NV_SATFINITE, __NV_E4M3);
  return static_cast<std::uint8_t>(sign | (code & 0x7f));
}

// Four finite values at once.
__device__ inline std::uint32_t encode_four(float const* values, float factor) {
  auto const low = __nv_cvt_float2_to_fp8x2(make_float2(__fmul_rn(values[0], factor), __fmul_rn(values[1], factor)),
                                            __NV_SATFINITE, __NV_E4M3);
  auto const high = __nv_cvt_float2_to_fp8x2(
      make_float2(__fmul_rn(values[2], factor), __fmul_rn(values[3], factor)), __NV_SATFINITE, __NV_E4M3);
  return static_cast<std::uint32_t>(low) | static_cast<std::uint32_t>(high) << 16;
}

__device__ inline std::uint32_t encode_any_four(float const* values, Fp8Scaling const& scaling) {
  if (scaling.finite) return encode_four(values, scaling.factor);
  std::uint32_t codes = 0;
  for (int i = 0; i < 4; ++i) codes |= static_cast<std::uint32_t>(encode_fp8(values[i], scaling.factor)) << (8 * i);
  return codes;
}

}  // namespace switchyard::cuda
