// FP8 rows: adjacent channels share a scale, which is an f32 and travels with the row.
#pragma once

#include <cstdint>

namespace switchyard {

inline constexpr int fp8_group = 128;  // channels that share one scale

// Scales of a row; the last group may be a shorter one.
constexpr std::int64_t scale_groups(std::int64_t channels) noexcept {
  return (channels + fp8_group - 1) / fp8_group;
}

}  // namespace switchyard
