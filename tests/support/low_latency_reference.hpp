// The contract of the low-latency mode, computed naively from the inputs of all ranks. Shares no code with the
// library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/low_latency_problem.hpp"
#include "support/reference.hpp"

namespace switchyard::test {

// What is known of a rank when a result is checked.
enum class Presence : std::uint8_t {
  here,
  gone,    // masked: nothing of it counts
  unsure,  // it ended on its way: all of it or nothing
};

// By rank; empty: all are here.
using Peers = std::vector<Presence>;

inline Presence presence(Peers const& peers, int rank) {
  return peers.empty() ? Presence::here : peers[index(rank)];
}

// Tokens of `source` that have the (global) expert in a slot, or one of the receiver's experts: each once, in
// order.
std::vector<std::int64_t> tokens_for_expert(SlotProblem const& p, int source, std::int64_t expert);
std::vector<std::int64_t> tokens_for_rank(SlotProblem const& p, int source, int receiver);

// Casts by definition; computed once a problem, see SlotProblem::sent.
SentToken token_as_sent(SlotProblem const& p, int source, std::int64_t token);

// What experts make of a token, in the dtype of the combine: of `maker`, an expert (expert_major) or a rank
// (rank_major). Without zeros, whose sign in a sum of one nobody promises.
std::vector<std::byte> slot_output(SlotProblem const& p, std::int64_t maker, int source, std::int64_t token);

// A row that a combine sums for a token, in the order of the sum.
struct SlotPart {
  int owner;           // rank
  std::int64_t maker;  // see slot_output
  float weight;
};

std::vector<SlotPart> slot_parts(SlotProblem const& p, int rank, std::int64_t token);

// [H] in f32: products and sums rounded one by one, without the parts of ranks that `peers` does not count here.
std::vector<float> slot_sum(SlotProblem const& p, int rank, std::int64_t token, Peers const& peers);

// [H] in the dtype of the combine.
std::vector<std::byte> combined_row(SlotProblem const& p, int rank, std::int64_t token, Peers const& peers);

}  // namespace switchyard::test
