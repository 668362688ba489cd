// Low-latency dispatch: rows that are cast to e4m3 on their way, 512 channels by one warp at a time: four scale
// groups, and so a whole word of packed exponents.
#pragma once

#include "engine/cuda/phases/elements.cuh"
#include "engine/cuda/phases/fp8.cuh"
#include "engine/cuda/phases/slot_rows.cuh"

namespace switchyard::cuda {

inline constexpr int cast_span = 4 * fp8_group;

__device__ inline Fp8Scaling scaling_for(SendCast cast, std::uint32_t amax_bits, bool finite) {
  Fp8Scaling const scaling = scaling_of(amax_bits, finite);
  return cast == SendCast::fp8 ? scaling : rounded_up(scaling);
}

// `scaling`: of group lane / 8. By a warp; all lanes have the slot's row.
__device__ inline void send_scales(SlotDispatchArgs const& args, Wave const& wave, int slot, int span,
                                   Fp8Scaling const& scaling) {
  int const groups = static_cast<int>((args.hidden + fp8_group - 1) / fp8_group);
  int const lane = lane_of_warp();
  int const group = 4 * span + lane / 8;
  if (args.cast == SendCast::fp8_ue8m0) {
    // Exponents of groups past the last are 0.
    std::uint32_t const exponent = group < groups ? __float_as_uint(scaling.scale) >> 23 : 0;
    std::uint32_t const word = __reduce_or_sync(~0U, lane % 8 == 0 ? exponent << lane : 0);  // lane 8 g: byte g
    if (lane == 0) send_scale(args, wave, slot, span, (groups + 3) / 4, word);
  } else if (lane % 8 == 0 && group < groups) {
    send_scale(args, wave, slot, group, groups, scaling.scale);
  }
}

// A lane's 16 channels in a row.
template <typename Element>
__device__ inline void load_channels(std::byte const* from, float (&values)[16]) {
  using Storage = typename Element::Storage;
  constexpr int words = 16 * sizeof(Storage) / sizeof(uint4);
  constexpr int each = sizeof(uint4) / sizeof(Storage);
  uint4 loaded[words];
#pragma unroll
  for (int i = 0; i < words; ++i) loaded[i] = reinterpret_cast<uint4 const*>(from)[i];
#pragma unroll
  for (int i = 0; i < 16; ++i)
    values[i] = Element::widen(reinterpret_cast<Storage const*>(&loaded[i / each])[i % each]);
}

__device__ inline std::uint32_t largest_of_eight_lanes(float const (&values)[16], bool with_nan) {
  std::uint32_t largest = smallest_amax_bits();
#pragma unroll
  for (int i = 0; i < 16; ++i) largest = larger_bits(largest, values[i], with_nan);
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2)
    largest = max(largest, __shfl_xor_sync(~0U, largest, distance));
  return largest;
}

// Rows whose addresses suit 16-byte accesses, before and after the cast: hidden is a multiple of 16.
template <typename Element>
__device__ inline void cast_span_wide(SlotDispatchArgs const& args, Wave const& wave, int token, int span) {
  std::int64_t const channel = static_cast<std::int64_t>(span) * cast_span + lane_of_warp() * 16;
  bool const there = channel < args.hidden;
  float values[16] = {};
  if (there)
    load_channels<Element>(args.x.from + (wave.first + token) * args.x.stride +
                               channel * static_cast<std::int64_t>(sizeof(typename Element::Storage)),
                           values);
  std::uint32_t bits = largest_of_eight_lanes(values, true);
  bool const finite = bits < infinity_bits;
  if (__any_sync(~0U, !finite)) {
    std::uint32_t const without = largest_of_eight_lanes(values, false);
    if (!finite) bits = without;
  }
  Fp8Scaling const scaling = scaling_for(args.cast, bits, finite);
  uint4 codes;
  codes.x = encode_any_four(values, scaling);
  codes.y = encode_any_four(values + 4, scaling);
  codes.z = encode_any_four(values + 8, scaling);
  codes.w = encode_any_four(values + 12, scaling);
#pragma unroll 1
  for (int slot = token * args.top_k; slot < (token + 1) * args.top_k; ++slot) {
    if (wave.row[slot] < 0) continue;
    std::byte* const to = slot_row(args, wave, slot, args.at.x, args.row_bytes);
    if (there) *reinterpret_cast<uint4*>(to + channel) = codes;
    send_scales(args, wave, slot, span, scaling);
  }
}

// Any rows: a lane has channels lane, lane + 32, + 64 and + 96 of each group.
template <typename Element>
__device__ inline void cast_span_narrow(SlotDispatchArgs const& args, Wave const& wave, int token, int span) {
  auto const* const from =
      reinterpret_cast<typename Element::Storage const*>(args.x.from + (wave.first + token) * args.x.stride);
  int const lane = lane_of_warp();
  Fp8Scaling own{};  // of group lane / 8
  std::uint8_t codes[4][4];
#pragma unroll
  for (int group = 0; group < 4; ++group) {
    std::int64_t const first = static_cast<std::int64_t>(span) * cast_span + group * fp8_group + lane;
    float values[4];
    std::uint32_t with_nan = smallest_amax_bits();
    std::uint32_t without = with_nan;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[i] = first + 32 * i < args.hidden ? Element::widen(from[first + 32 * i]) : 0.0F;
      with_nan = larger_bits(with_nan, values[i], true);
      without = larger_bits(without, values[i], false);
    }
    bool const finite = __reduce_max_sync(~0U, with_nan) < infinity_bits;
    Fp8Scaling const scaling = scaling_for(args.cast, __reduce_max_sync(~0U, without), finite);
    if (lane / 8 == group) own = scaling;
#pragma unroll
    for (int i = 0; i < 4; ++i) codes[group][i] = encode_fp8(values[i], scaling.factor);
  }
#pragma unroll 1
  for (int slot = token * args.top_k; slot < (token + 1) * args.top_k; ++slot) {
    if (wave.row[slot] < 0) continue;
    auto* const to = reinterpret_cast<std::uint8_t*>(slot_row(args, wave, slot, args.at.x, args.row_bytes));
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      std::int64_t const channel =
          static_cast<std::int64_t>(span) * cast_span + i / 4 * fp8_group + i % 4 * 32 + lane;
      if (channel < args.hidden) to[channel] = codes[i / 4][i % 4];
    }
    send_scales(args, wave, slot, span, own);
  }
}

template <typename Element>
__device__ inline void send_cast_of(SlotDispatchArgs const& args, Wave const& wave) {
  int const spans = static_cast<int>((args.hidden + cast_span - 1) / cast_span);
  for (int i = warp_of_block(); i < wave.tokens * spans; i += slot_warps) {
    if (args.x.width == 16) {
      cast_span_wide<Element>(args, wave, i / spans, i % spans);
    } else {
      cast_span_narrow<Element>(args, wave, i / spans, i % spans);
    }
  }
}

// By all threads of a block, after place_wave().
__device__ inline void send_cast(SlotDispatchArgs const& args, Wave const& wave) {
  switch (args.dtype) {
    case DType::bf16: send_cast_of<Bf16>(args, wave); break;
    case DType::f16: send_cast_of<F16>(args, wave); break;
    default: send_cast_of<F32>(args, wave); break;
  }
}

}  // namespace switchyard::cuda
