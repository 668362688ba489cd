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

// Rounded to the dtype of the outputs, bit by bit.
void expect_sum(Place const& place, Terms const& terms, std::vector<float> const& sum, std::byte const* seen);
// A coded sum is off from the one without a code by what the code may miss, and by the rounding of the dtype.
void expect_close(Place const& place, Terms const& terms, JobData const& data, SumTerms sum, std::byte const* seen);

}  // namespace switchyard::oracle
