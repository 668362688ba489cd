// The cast to fp8 written out from its definition, one element after another; shares no code with the engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace switchyard::cli {

// To e4m3 (no infinity, largest 448): nearest even, saturating; NaN becomes 0x7f with the sign of the input.
std::uint8_t float_to_e4m3(float value) noexcept;

// Casts a bf16 row with one scale per 128 channels: amax = max(1e-4, max |x|), scale = amax / 448,
// q = e4m3(x * (448 / amax)).
void cast_reference(std::span<std::uint16_t const> row, std::span<std::byte> values, std::span<float> scales);

}  // namespace switchyard::cli
