// What a token and an expert output become on their way, by the definitions of the casts and codes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "oracle/job.hpp"

namespace switchyard::oracle {

// To e4m3 with a scale for each 128 channels, of amax = max(1e-4, max |x|).
//   fp8: scale = amax / 448, q = e4m3(x * (448 / amax)).
//   fp8_pow2, fp8_ue8m0: the scale is the smallest power of two not below amax / 448, q = e4m3(x / scale). ue8m0
//   scales are exponents, one byte each, filled up with zeros to whole words.
TokenBytes cast_token(std::span<std::byte const> x, DType dtype, SendCast cast);

// As a receiver sees it.
TokenBytes sent_token(Terms const& terms, JobData const& data, TokenKey const& key);

// As a combine reads it: what LogFMT-10 makes of a row of expert outputs.
void code_and_decode(std::span<float> row);
// By how much LogFMT-10 may miss each value of a row: by half of what two levels are apart there. Levels are 1/510
// of the logarithmic range of 128 channels apart.
std::vector<float> coding_misses(std::span<float const> row);

}  // namespace switchyard::oracle
