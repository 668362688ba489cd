// What crosses between nodes in a combine, whoever sums the rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "call/hosted/returned_rows.hpp"
#include "call/hosted/row_mover.hpp"
#include "layout/scale_out/combine_chunk.hpp"
#include "layout/scale_out/placed_tokens.hpp"

namespace switchyard {

// Sums on their way back to one rank of another node.
struct SumsBack {
  scale_out::Served to;
  scale_out::PlacedTokens const& tokens;
  std::vector<std::uint8_t> weights;  // how many go with each token's row; the writer reads it
  scale_out::CombineWriter writer;
};

// By rank that is served. The task must outlive them, and have a crossing; so below.
std::vector<SumsBack> sums_back(PullTask const& task);
// By way.
std::vector<ReturnedRows> returned_rows(PullTask const& task);

}  // namespace switchyard
