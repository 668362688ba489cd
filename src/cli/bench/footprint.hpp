// How much memory a benchmark takes, and how many tokens fit.
#pragma once

#include <cstdint>
#include <functional>

#include "oracle/expected.hpp"
#include "oracle/problem.hpp"

namespace switchyard::cli {

using oracle::Problem;
using oracle::RoutingTable;
using oracle::Traffic;

// Bytes of the tensors of one rank that must exist at the same time.
struct Footprint {
  std::int64_t inputs = 0;          // tokens, their scales, ids and weights
  std::int64_t received = 0;        // rows, their scales, ids, weights and source tokens
  std::int64_t expert_outputs = 0;  // what combine reads
  std::int64_t combined = 0;
  [[nodiscard]] std::int64_t total() const noexcept { return inputs + received + expert_outputs + combined; }
};
Footprint footprint_of(Problem const& problem, Traffic const& traffic);

// Bytes of a symmetric heap that holds what dispatch and combine of any rank put there. (Address space: a page
// takes memory when it is written.)
std::size_t heap_bytes_for(Problem const& problem, std::vector<Traffic> const& traffic);

// The largest number of tokens a rank, up to problem.tokens, for which all ranks together need no more than
// `available` bytes. Throws OutOfMemory when not even one fits. `route` makes the routing of a problem.
using Router = std::function<RoutingTable(Problem const&)>;
std::int64_t tokens_that_fit(Problem const& problem, Router const& route, std::int64_t available,
                             std::int64_t copy_buffers);

}  // namespace switchyard::cli
