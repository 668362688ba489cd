// What must cross between nodes: a row for each token and node that the token goes to. Straight from the ids.
#pragma once

#include <cstdint>

#include "oracle/job.hpp"
#include "support/check.hpp"

namespace switchyard::test {

// Tokens of the rank that have an expert on the node. Experts divide evenly among the ranks.
inline std::int64_t rows_to_node(oracle::JobData const& data, oracle::Terms const& terms, int rank, int node) {
  auto const is_there = [&](std::int64_t token) {
    for (int slot = 0; slot < terms.top_k; ++slot) {
      std::int64_t const expert = data.id({rank, token}, slot);
      if (expert >= 0 && terms.node_of(static_cast<int>(expert / (terms.experts / terms.ranks))) == node)
        return true;
    }
    return false;
  };
  std::int64_t rows = 0;
  for (std::int64_t token = 0; token < data.tokens(rank); ++token) rows += is_there(token) ? 1 : 0;
  return rows;
}

// The bytes that a call has sent, against those of its rows and what may go beside, as a share of these.
inline void check_wire_bytes(char const* call, std::uint64_t seen, std::int64_t bytes_of_rows, double most_beside) {
  auto const least = static_cast<double>(bytes_of_rows);
  auto const bytes = static_cast<double>(seen);
  check(bytes >= least, call, ": expected at least the ", least, " bytes of rows, seen ", bytes);
  check(bytes <= least * (1 + most_beside), call, ": expected at most ", most_beside * 100, " % beside rows, seen ",
        (bytes / least - 1) * 100, " % of ", least);
}

}  // namespace switchyard::test
