// Where tokens go and how many there are, by chance: even, skewed, sparse or not at all.
#pragma once

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

}  // namespace switchyard::test
