// The inputs of all ranks for one case of the low-latency mode, made from its seed, and the checks of a rank.
#pragma once

#include <vector>

#include "oracle/low_latency_check.hpp"
#include "support/low_latency_case.hpp"
#include "support/problem.hpp"

namespace switchyard::test {

using oracle::Peers;
using oracle::Presence;

struct SlotProblem final : oracle::JobData {
  SlotCase the;
  Problem base;                                // ranks, tokens, ids, weights, x
  std::vector<std::vector<std::byte>> scales;  // of ranks, [N, row of scales]: f8e4m3 and u8 only

  [[nodiscard]] RankInput const& input(int rank) const { return base.inputs[index(rank)]; }
  [[nodiscard]] std::int64_t tokens(int rank) const override { return base.tokens(rank); }
  [[nodiscard]] std::int64_t id(oracle::TokenKey const& key, int slot) const override { return base.id(key, slot); }
  [[nodiscard]] oracle::TokenBytes token(oracle::TokenKey const& key) const override;
  [[nodiscard]] std::vector<float> weights(oracle::TokenKey const& key) const override { return base.weights(key); }
  // Without zeros, whose sign in a sum of one nobody promises.
  void fill_output(int maker, oracle::Row const& row, std::span<std::byte> out) const override;
};

SlotProblem make_slot_problem(SlotCase const& c);

// Problems of one case that differ in what the seed decides.
std::vector<SlotProblem> make_slot_problems(SlotCase c, int count);

class SlotChecker : public oracle::LowLatencyChecker {
 public:
  SlotChecker(SlotProblem const& p, int rank) : LowLatencyChecker(terms_of(p.the), slot_terms(p.the), p, rank) {}
};

// What the experts make of a result, row by row in its slots, in the dtype of the combine. Rows that nobody sent
// hold NaN: nobody may read them.
std::vector<std::byte> outputs_of(SlotChecker const& checker, SlotProblem const& p, LowLatencyReceived const& seen);

}  // namespace switchyard::test
