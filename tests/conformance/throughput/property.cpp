// Random shapes and routings against the reference. SWITCHYARD_TEST_SEED repeats a run.
#include <iostream>

#include "support/flow.hpp"
#include "support/random_traffic.hpp"

namespace switchyard::test {
namespace {

Case random_shape(Random& random) {
  Case c;
  c.ranks = random.between(1, 8);
  c.tokens = random.between(1, 40);
  c.counts = random.one_of({Tokens::equal, Tokens::varied, Tokens::varied, Tokens::first_only, Tokens::last_none});
  c.hidden = random.chance(20) ? random.between(1, 3000) : random.between(1, 300);
  c.experts = random.between(1, 40);
  c.top_k = random.chance(10) ? random.between(1, 64) : random.between(1, 8);
  c.routing = random.one_of({Routing::uniform, Routing::uniform, Routing::skewed, Routing::one_expert,
                             Routing::sparse, Routing::repeated});
  c.seed = random.bits();
  return c;
}

Case random_case(Random& random) {
  Case c = random_shape(random);
  choose_payload(c, random);
  c.by_rank = random.chance(15);
  c.layout = !c.by_rank && random.chance(50) ? OutputLayout::expanded : OutputLayout::flat;
  c.alignment = random.chance(50) ? 1 : random.between(1, 20);
  c.zero_padding = c.expanded() && random.chance(50);
  c.worst = !c.by_rank && random.chance(20);
  c.workers = random.between(1, 3);
  c.launch = random.chance(20) ? Launch::processes : Launch::threads;
  return c;
}

bool run_random_case(Case const& c, Random& random) {
  Problem const problem = make_problem(c);
  CombineExtras extras{random.between(0, 2), random.chance(30), random.chance(50)};
  extras.weights_of_all_ranks = c.by_rank || (!c.expanded() && random.chance(50));
  std::string const what = text(c, " biases ", extras.biases, " row_weights ", extras.row_weights, " topk_weights ",
                                extras.topk_weights);
  return run_ranks(c.launch, c.ranks, what, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    round_trip(problem, buffer, extras);
    round_trip(problem, buffer, extras);
  });
}

TEST(Property, RandomCasesMatchTheReference) {
  std::cout << "SWITCHYARD_TEST_SEED=" << fresh_seed() << std::endl;
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int i = 0; i < by_scale(30, 250); ++i) {
    if (!run_random_case(random_case(random), random)) return;
  }
}

// One job, one buffer, many routings: state left behind by one call would show in the next.
TEST(Property, RandomRoutingsInOneBuffer) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(mix(fresh_seed(), 2));
  Case c{.ranks = 4, .tokens = 30, .hidden = 40, .experts = 10, .top_k = 4, .workers = 2};
  std::vector<Problem> problems;
  for (int i = 0; i < by_scale(10, 60); ++i) {
    Case const other = random_shape(random);
    c.routing = other.routing;
    c.counts = other.counts;
    c.seed = other.seed;
    choose_payload(c, random);
    c.layout = random.chance(50) ? OutputLayout::expanded : OutputLayout::flat;
    problems.push_back(make_problem(c));
  }
  run_ranks(Launch::threads, c.ranks, "one buffer", [&](Communicator& communicator) {
    BufferOptions options = options_for(problems[0]);
    options.heap_bytes = std::size_t{64} << 20U;
    Buffer buffer(communicator, options);
    for (Problem const& p : problems) round_trip(p, buffer);
  });
}

}  // namespace
}  // namespace switchyard::test
