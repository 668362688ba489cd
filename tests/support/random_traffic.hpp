// By chance: where tokens go and how many there are (even, skewed, sparse or not at all), and what they carry.
#pragma once

#include <algorithm>
#include <vector>

#include "support/case.hpp"
#include "support/random.hpp"

namespace switchyard::test {

// `c`: a case of either mode.
template <typename AnyCase>
void choose_traffic(AnyCase& c, Random& random) {
  c.routing = random.one_of({Routing::uniform, Routing::uniform, Routing::skewed, Routing::one_expert,
                             Routing::sparse, Routing::none, Routing::repeated});
  c.counts = random.one_of(
      {Tokens::equal, Tokens::varied, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none});
}

// Any nodes, by rank, numbered in the order of their first ranks.
inline std::vector<int> random_nodes(int ranks, int most, Random& random) {
  std::vector<int> found;
  std::vector<int> nodes;
  for (int rank = 0; rank < ranks; ++rank) {
    int const name = random.between(0, most - 1);
    auto const at = std::ranges::find(found, name);
    nodes.push_back(static_cast<int>(at - found.begin()));
    if (at == found.end()) found.push_back(name);
  }
  return nodes;
}

// What a call of the throughput mode carries, and in which dtypes.
inline void choose_payload(Case& c, Random& random) {
  c.dtype = random.one_of({DType::bf16, DType::f16, DType::f32, DType::f8e4m3});
  c.combine_dtype = random.one_of({DType::bf16, DType::f16, DType::f32});
  c.id_dtype = random.one_of({DType::i32, DType::i64});
  c.weights = random.chance(80);
  c.cast = c.dtype != DType::f8e4m3 && random.chance(30);
  c.extra_stride = random.chance(20) ? random.between(1, 20) : 0;
  c.scales_by_column = random.chance(50);
}

}  // namespace switchyard::test
