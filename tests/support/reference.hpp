// The contract of dispatch and combine, computed naively from the inputs of all ranks. Shares no code with
// the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/problem.hpp"

namespace switchyard::test {

// Contiguous ranges; the first E % R ranks hold one more.
struct ExpertRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] bool holds(std::int64_t id) const { return id >= begin && id < end; }
  [[nodiscard]] std::int64_t count() const { return end - begin; }
};

ExpertRange experts_of(Case const& c, int rank);

int owner_of(Case const& c, std::int64_t expert);

// Where a received row comes from. In the flat layout a row stands for all slots of its token (slot -1).
struct Row {
  int source = -1;
  std::int64_t token = -1;
  int slot = -1;
  [[nodiscard]] bool pads() const { return source < 0; }
};

std::int64_t const* ids_of(Problem const& p, int source, std::int64_t token);

bool goes_to(Problem const& p, int source, std::int64_t token, int receiver);

// Rows that every receiver can rely on in worst-case mode: a few more than any of them needs.
std::int64_t worst_rows(Problem const& p);

// All rows that `receiver` gets, in order, with those that only pad.
std::vector<Row> received_rows(Problem const& p, int receiver);

// Rows of each local expert, rounded up to the alignment: as the handle tells them, and as the result does, which
// is silent in worst-case mode.
std::vector<std::int64_t> padded_tokens_per_expert(Problem const& p, int receiver);
std::vector<std::int64_t> tokens_per_expert(Problem const& p, int receiver);
// Not rounded.
std::vector<std::int64_t> real_tokens_per_expert(Problem const& p, int receiver);

// Cumulative rows by source rank, flat layout.
std::vector<std::int64_t> rows_end_by_rank(Problem const& p, int receiver);

// The local id that a slot shows to `receiver`, and the weight that goes with it.
std::int64_t local_id(Problem const& p, Row const& row, int receiver, int slot);

float weight_of(Problem const& p, Row const& row, int slot);

struct TokenData {
  std::vector<std::byte> x;
  std::vector<float> scales;
};

// Per token and 128 channels: amax = max(1e-4, max |x|), scale = amax / 448, q = e4m3(x * (448 / amax)).
TokenData cast_by_definition(std::byte const* row, Case const& c);

// What a receiver sees of a token.
TokenData token_data(Problem const& p, Row const& row);

}  // namespace switchyard::test
