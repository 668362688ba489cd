// What a token becomes on its way to a slot, by the definitions of the casts.
#pragma once

#include <cstddef>
#include <vector>

#include "oracle/payload.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::cli {

struct SentRow {
  std::vector<std::byte> x;
  std::vector<std::byte> scales;  // one after another; empty without fp8
};

void fill_sent(Problem const& problem, SendCast cast, TokenKey const& key, SentRow& row);

// As combine reads it: what comes of a row of bf16 after LogFMT-10.
void code_and_decode(std::vector<float>& row);

}  // namespace switchyard::cli
