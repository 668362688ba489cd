// cast_to_fp8(). Compiled with -ffp-contract=off, as simd_sum.cpp is.
#include "engine/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/simd/cast.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <bit>
#include <cstring>
#include <string>

#include "engine/cpu/simd/elements.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"
#include "layout/fp8.hpp"
#include "switchyard/error.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

inline constexpr std::size_t group_elements = fp8_group;
inline constexpr float fp8_largest = 448.0F;
inline constexpr float smallest_amax = 1e-4F;
inline constexpr std::uint32_t infinity_bits = 0x7f800000;

HWY_INLINE U32 magnitude_bits(F32 value) {
  return hn::And(as_u32(value), all_u32(0x7fffffff));
}

// The largest magnitude of a group, at least 1e-4, as bits: these order as the numbers do, infinity and then
// NaN above all. Without `with_nan`, NaN does not count.
template <class Element, bool with_nan>
HWY_INLINE std::uint32_t group_amax(std::byte const* from) {
  U32 const infinity = all_u32(infinity_bits);
  U32 amax = as_u32(hn::Set(TagF32(), smallest_amax));
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  for (std::size_t at = 0; at < group_elements; at += block_elements()) {
    Element::load(from + at * Element::size, a, b);
    U32 bits_a = magnitude_bits(a);
    U32 bits_b = magnitude_bits(b);
    if constexpr (!with_nan) {
      bits_a = hn::IfThenZeroElse(hn::Gt(bits_a, infinity), bits_a);
      bits_b = hn::IfThenZeroElse(hn::Gt(bits_b, infinity), bits_b);
    }
    amax = hn::Max(amax, hn::Max(bits_a, bits_b));
  }
  return hn::GetLane(hn::MaxOfLanes(TagU32(), amax));
}

// The e4m3 code of value * factor (factor >= 0).
template <bool may_be_nan>
HWY_INLINE U32 encode(F32 value, F32 factor) {
  F32 const scaled = hn::Mul(value, factor);
  F32 const absolute = hn::Min(hn::Abs(scaled), hn::Set(TagF32(), fp8_largest));
  U32 const bits = as_u32(absolute);
  // Half of the last place less one, and one more when that place is odd: ties go to even. The same addition
  // changes the bias of the exponent (modulo 2^32).
  U32 const odd = hn::And(hn::ShiftRight<20>(bits), all_u32(1));
  U32 const normal = hn::ShiftRight<20>(hn::Add(hn::Add(bits, odd), all_u32(0x7ffffU - ((127U - 7U) << 23))));
  // 2^14 has the last place of e4m3's denormals, 2^-9, so the addition rounds to them.
  F32 const shifter = hn::Set(TagF32(), 16384.0F);
  U32 const denormal = hn::Sub(as_u32(hn::Add(absolute, shifter)), as_u32(shifter));
  U32 code = hn::IfThenElse(hn::Lt(bits, all_u32((127 - 6) << 23)), denormal, normal);
  if constexpr (may_be_nan) {
    code = hn::IfThenElse(hn::Gt(magnitude_bits(scaled), all_u32(infinity_bits)), all_u32(0x7f), code);
  }
  return hn::Or(code, hn::And(hn::ShiftRight<24>(as_u32(value)), all_u32(0x80)));
}

template <class Element, bool may_be_nan>
HWY_INLINE void encode_group(std::byte const* from, std::uint8_t* values, float by) {
  hn::Rebind<std::uint8_t, TagU16> const bytes;
  F32 const factor = hn::Set(TagF32(), by);
  F32 a = factor;
  F32 b = factor;
  for (std::size_t at = 0; at < group_elements; at += block_elements()) {
    Element::load(from + at * Element::size, a, b);
    U16 const codes = Element::in_order(encode<may_be_nan>(a, factor), encode<may_be_nan>(b, factor));
    hn::StoreU(hn::TruncateTo(bytes, codes), bytes, values + at);
  }
}

// What is stored with a group, and what its values are multiplied by.
struct Scale {
  float scale;
  float factor;
};

HWY_INLINE Scale scale_of(std::uint32_t amax_bits, bool power_of_two) {
  float const amax = std::bit_cast<float>(amax_bits);
  // An infinite amax has factor 0, whose product with infinity is NaN.
  if (!power_of_two || amax_bits >= infinity_bits) return {amax / fp8_largest, fp8_largest / amax};
  // 448 is 1.75 * 2^8: an exact comparison of the mantissa, then an exact factor.
  constexpr std::uint32_t mantissa_of_largest = 0x600000;
  std::uint32_t const round_up = (amax_bits & 0x7fffff) > mantissa_of_largest ? 1 : 0;
  std::uint32_t const exponent = (amax_bits >> 23) + round_up - 8;
  return {std::bit_cast<float>(exponent << 23), std::bit_cast<float>((254 - exponent) << 23)};
}

template <class Element>
HWY_INLINE void cast_group(std::byte const* from, bool power_of_two, std::uint8_t* values, float& scale) {
  std::uint32_t bits = group_amax<Element, true>(from);
  bool const finite = bits < infinity_bits;
  if (!finite) bits = group_amax<Element, false>(from);
  Scale const with = scale_of(bits, power_of_two);
  scale = with.scale;
  if (finite) {
    encode_group<Element, false>(from, values, with.factor);
  } else {
    encode_group<Element, true>(from, values, with.factor);
  }
}

template <class Element>
HWY_INLINE void cast_row(Fp8Cast const& cast) {
  auto const* const from = static_cast<std::byte const*>(cast.from);
  std::size_t at = 0;
  float* scale = cast.scales;
  for (; cast.count - at >= group_elements; at += group_elements) {
    prefetch(from, at * Element::size, group_elements * Element::size, cast.count * Element::size);
    cast_group<Element>(from + at * Element::size, cast.power_of_two, cast.values + at, *scale++);
  }
  if (at == cast.count) return;
  // The zeros that fill the last group do not change its scale.
  std::byte padded[group_elements * Element::size] = {};
  std::uint8_t values[group_elements];
  std::memcpy(padded, from + at * Element::size, (cast.count - at) * Element::size);
  cast_group<Element>(padded, cast.power_of_two, values, *scale);
  std::memcpy(cast.values + at, values, cast.count - at);
}

void cast_bf16(Fp8Cast const& cast) {
  cast_row<Bf16>(cast);
}
void cast_f16(Fp8Cast const& cast) {
  cast_row<F16>(cast);
}
void cast_f32(Fp8Cast const& cast) {
  cast_row<Single>(cast);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(cast_bf16);
HWY_EXPORT(cast_f16);
HWY_EXPORT(cast_f32);

void cast_to_fp8(Fp8Cast const& cast) {
  switch (cast.dtype) {
    case DType::bf16: return HWY_DYNAMIC_DISPATCH(cast_bf16)(cast);
    case DType::f16: return HWY_DYNAMIC_DISPATCH(cast_f16)(cast);
    case DType::f32: return HWY_DYNAMIC_DISPATCH(cast_f32)(cast);
    default: throw InvalidArgument("cast_to_fp8: no casts from " + std::string(name_of(cast.dtype)));
  }
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
