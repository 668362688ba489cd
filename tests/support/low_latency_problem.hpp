// The inputs of all ranks for one case of the low-latency mode, made from its seed; and what of each token travels.
#pragma once

#include <vector>

#include "support/low_latency_case.hpp"
#include "support/problem.hpp"

namespace switchyard::test {

// A token as it arrives.
struct SentToken {
  std::vector<std::byte> x;
  std::vector<std::byte> scales;  // f32, exponents (one byte each), or opaque bytes
};

struct SlotProblem {
  SlotCase the;
  Problem base;                                // ranks, tokens, ids, weights, x
  std::vector<std::vector<std::byte>> scales;  // of ranks, [N, row of scales]: f8e4m3 and u8 only
  std::vector<std::vector<SentToken>> sent;    // of ranks, by token

  [[nodiscard]] RankInput const& input(int rank) const { return base.inputs[index(rank)]; }
  [[nodiscard]] std::int64_t tokens(int rank) const { return input(rank).tokens; }
};

SlotProblem make_slot_problem(SlotCase const& c);

// Problems of one case that differ in what the seed decides.
std::vector<SlotProblem> make_slot_problems(SlotCase c, int count);

}  // namespace switchyard::test
