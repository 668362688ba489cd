// What the sums of a combine must be.
#pragma once

#include <cstddef>
#include <vector>

#include "oracle/compare.hpp"
#include "oracle/expected.hpp"

namespace switchyard::oracle {

// The parts of a token's sum and how they are added up: in f32, products and sums rounded one by one, in their
// order.
struct SumTerms {
  std::vector<Contribution> parts;
  std::vector<float> start{};  // what the sum starts with; empty: nothing
  bool from_zero = false;      // rather than from the first part, whose -0 then stays
  CombineCoding coding = CombineCoding::none;
};

std::vector<float> sum_of(Terms const& terms, JobData const& data, SumTerms const& sum);
// Of a token of `owner`, a rank, whose parts may lie on several nodes. In a job of several nodes the sum is a tree:
// each node adds up its own parts, in their order, from the first of them; then come what the sum starts with and
// the sums of nodes, in the order of nodes. Those of other nodes have been rounded to the dtype of the outputs on
// their way, unless the job sends them as f32, and coded where rows are. A node without parts has no sum.
std::vector<float> sum_over_nodes(Terms const& terms, JobData const& data, SumTerms const& sum, int owner);

// Rounded to the dtype of the outputs, bit by bit.
void expect_sum(Place const& place, Terms const& terms, std::vector<float> const& sum, std::byte const* seen);
// A coded sum is off from the one without a code by what the code may miss, and by the rounding of the dtype.
void expect_close(Place const& place, Terms const& terms, JobData const& data, SumTerms sum, std::byte const* seen);

}  // namespace switchyard::oracle
