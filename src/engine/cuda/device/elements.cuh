// Floating-point elements, widened to f32 and rounded back. NaNs get the one bit pattern that the CPU engine
// writes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace switchyard::cuda {

struct Bf16 {
  using Storage = std::uint16_t;
  __device__ static float widen(Storage bits) { return __uint_as_float(static_cast<std::uint32_t>(bits) << 16); }
  __device__ static Storage narrow(float value) {
    if (value != value) return 0x7fc0;
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
  }
};

struct F16 {
  using Storage = std::uint16_t;
  __device__ static float widen(Storage bits) { return __half2float(__ushort_as_half(bits)); }
  __device__ static Storage narrow(float value) {
    if (value != value) return 0x7e00;
    return __half_as_ushort(__float2half_rn(value));
  }
};

struct F32 {
  using Storage = std::uint32_t;
  __device__ static float widen(Storage bits) { return __uint_as_float(bits); }
  __device__ static Storage narrow(float value) {
    if (value != value) return 0x7fc00000;
    return __float_as_uint(value);
  }
};

}  // namespace switchyard::cuda
