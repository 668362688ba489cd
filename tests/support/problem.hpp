// The inputs of all ranks for one case, made from its seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/case.hpp"
#include "support/random.hpp"

namespace switchyard::test {

// Everything contiguous and row-major.
struct RankInput {
  std::int64_t tokens = 0;
  std::vector<std::byte> x;         // [N, H]
  std::vector<float> scales;        // [N, ceil(H/128)], f8e4m3 only
  std::vector<std::int64_t> ids;    // [N, K]; with by_rank all -1
  std::vector<float> weights;       // [N, K]
  std::vector<std::uint8_t> ranks;  // [N, R], by_rank only
};

struct Problem {
  Case the;
  std::vector<RankInput> inputs;
};

inline std::size_t index(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

std::vector<std::byte> random_values(DType dtype, std::int64_t count, Random& random);

std::vector<float> random_floats(std::int64_t count, Random& random);

Problem make_problem(Case const& c);

}  // namespace switchyard::test
