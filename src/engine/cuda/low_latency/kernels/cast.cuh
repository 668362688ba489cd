// Low-latency dispatch: rows that are cast to e4m3 on their way. A warp casts 512 channels at a time, which are
// four scale groups, and so a whole word of packed exponents.
#pragma once

#include "engine/cuda/device/elements.cuh"
#include "engine/cuda/device/fp8.cuh"
#include "engine/cuda/low_latency/kernels/rows.cuh"

namespace switchyard::cuda {

inline constexpr int cast_span = 4 * fp8_group;

__device__ inline Fp8Scaling scaling_for(SendCast cast, std::uint32_t amax_bits, bool finite) {
  Fp8Scaling const scaling = scaling_of(amax_bits, finite);
  return cast == SendCast::fp8 ? scaling : rounded_up(scaling);
}

// What a lane stores of the scales of a span. Lanes 0, 8, 16 and 24 store one each, or lane 0 all four when they
// are packed.
struct LaneScale {
  std::uint32_t bits;
  std::int64_t at;  // bytes from the row's first scale; -1: this lane stores none
};

// `scaling` is that of group lane / 8.
__device__ inline LaneScale lane_scale(SlotDispatchArgs const& args, int span, Fp8Scaling const& scaling) {
  int const groups = static_cast<int>((args.hidden + fp8_group - 1) / fp8_group);
  int const lane = lane_of_warp();
  int const group = 4 * span + lane / 8;
  std::uint32_t const bits = __float_as_uint(scaling.scale);
  if (args.cast != SendCast::fp8_ue8m0)
    return {bits, lane % 8 == 0 && group < groups ? group * scale_step(args) : -1};
  // Lane 8 g has byte g. The exponents of groups past the last are 0.
  std::uint32_t const exponent = lane % 8 == 0 && group < groups ? bits >> 23 << lane : 0;
  return {__reduce_or_sync(~0U, exponent), lane == 0 ? span * scale_step(args) : -1};
}

__device__ inline void send_scale(Wave const& wave, int slot, LaneScale const& scale) {
  if (scale.at >= 0) *reinterpret_cast<std::uint32_t*>(wave.scales[slot] + scale.at) = scale.bits;
}

// Loads a lane's 16 channels, which are adjacent.
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

// For rows whose addresses suit 16-byte accesses before and after the cast, so that hidden is a multiple of 16.
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
  LaneScale const scale = lane_scale(args, span, scaling);
  for_slots(args, wave, token, [&](int slot) {
    if (there) *reinterpret_cast<uint4*>(wave.row[slot] + channel) = codes;
    send_scale(wave, slot, scale);
  });
}

// For any rows. A lane has channels lane, lane + 32, lane + 64 and lane + 96 of each group.
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
  LaneScale const scale = lane_scale(args, span, own);
  for_slots(args, wave, token, [&](int slot) {
    auto* const to = reinterpret_cast<std::uint8_t*>(wave.row[slot]);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      std::int64_t const channel =
          static_cast<std::int64_t>(span) * cast_span + i / 4 * fp8_group + i % 4 * 32 + lane;
      if (channel < args.hidden) to[channel] = codes[i / 4][i % 4];
    }
    send_scale(wave, slot, scale);
  });
}

// Rows for cast_span_wide().
template <typename Element>
struct WideCast : DirectRows {
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    int const spans = static_cast<int>((args.hidden + cast_span - 1) / cast_span);
#pragma unroll 1
    for (int i = warp_of_block(); i < wave.tokens * spans; i += slot_warps)
      cast_span_wide<Element>(args, wave, i / spans, i % spans);
  }
};

// Rows for cast_span_narrow().
struct AnyCast : DirectRows {
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    int const spans = static_cast<int>((args.hidden + cast_span - 1) / cast_span);
#pragma unroll 1
    for (int i = warp_of_block(); i < wave.tokens * spans; i += slot_warps) {
      switch (args.dtype) {
        case DType::bf16: cast_span_narrow<Bf16>(args, wave, i / spans, i % spans); break;
        case DType::f16: cast_span_narrow<F16>(args, wave, i / spans, i % spans); break;
        default: cast_span_narrow<F32>(args, wave, i / spans, i % spans); break;
      }
    }
  }
};

}  // namespace switchyard::cuda
