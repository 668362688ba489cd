// Jobs of several nodes: a dispatch gives what it gives on one node, and a combine sums by the tree of the oracle
// (sum_over_nodes). Most ranks are threads that play nodes.
#include <algorithm>

#include "support/cached.hpp"
#include "support/gate.hpp"
#include "support/layout_check.hpp"
#include "support/random_traffic.hpp"

namespace switchyard::test {
namespace {

using Nodes = std::vector<int>;

// By rank, the node. Two of equal size, one rank alone on a node, nodes of other sizes, more nodes than any has
// ranks, none with two ranks, and ranks that do not follow one another.
std::vector<Nodes> all_shapes() {
  return {{0, 0, 1, 1},          {0, 1},       {0, 1, 1, 1}, {0, 0, 0, 1},   {0, 0, 1, 1, 1, 2},
          {0, 0, 1, 1, 2, 2, 3}, {0, 1, 2, 3}, {0, 1, 0, 1}, {0, 1, 1, 0, 2}};
}
Nodes const uneven{0, 0, 1, 1, 1, 2};

Case on(Nodes const& nodes, Case c = {}) {
  c.ranks = static_cast<int>(nodes.size());
  c.nodes = nodes;
  return c;
}

Case expanded(Case c) {
  c.layout = OutputLayout::expanded;
  c.alignment = 4;
  return c;
}

// Several tokens a chunk, and several chunks a node, in rows of odd sizes.
Case many() {
  return {.tokens = 60, .hidden = 133, .experts = 14, .top_k = 5, .workers = 2};
}

// A round trip with everything that a combine takes; in a cast the rows come back in the dtype of x.
bool run_with(Case const& c, CombineExtras const& extras) {
  Problem const problem = make_problem(c);
  return run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    round_trip(problem, buffer, extras);
    round_trip(problem, buffer, extras);
  });
}

TEST(OverNodes, EveryShape) {
  for (Nodes const& nodes : all_shapes()) {
    run_case(on(nodes));
    run_case(on(nodes, expanded({.top_k = 3})));
    run_case(on(nodes, {.by_rank = true}));
    run_case(on(nodes, many()));
    run_case(on(nodes, expanded(many())));
  }
}

TEST(OverNodes, EveryPayload) {
  for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, uneven}) {
    for (DType const dtype : {DType::bf16, DType::f16, DType::f32, DType::f8e4m3}) {
      Case c = on(nodes, many());
      c.dtype = dtype;
      c.combine_dtype = dtype == DType::f8e4m3 ? DType::bf16 : dtype;
      run_case(c);
      run_case(expanded(c));
      c.cast = dtype != DType::f8e4m3;
      c.scales_by_column = true;
      run_case(c);
    }
  }
}

TEST(OverNodes, AnyHidden) {
  for (std::int64_t const hidden : {1, 7, 128, 129, 7168})
    run_case(on({0, 0, 1}, {.tokens = hidden > 1000 ? 5 : 20, .hidden = hidden, .dtype = DType::f8e4m3}));
}

TEST(OverNodes, AnyTopK) {
  for (int const top_k : {1, 8, 64}) {
    Case const c = on({0, 1, 1}, {.hidden = 9, .experts = 70, .top_k = top_k});
    run_case(c);
    run_case(expanded(c));
  }
}

TEST(OverNodes, IdsOfBothSizesAndNoWeights) {
  for (DType const ids : {DType::i32, DType::i64}) {
    Case c = on(uneven, {.id_dtype = ids});
    run_case(c);
    c.weights = false;
    run_case(c);
    run_case(expanded(c));
  }
}

TEST(OverNodes, EveryRouting) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                                Routing::none, Routing::repeated}) {
    Case c = many();
    c.routing = routing;
    for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, {0, 1, 1, 1}, uneven}) {
      run_case(on(nodes, c));
      run_case(on(nodes, expanded(c)));
    }
  }
}

TEST(OverNodes, TokenCountsDiffer) {
  for (Tokens const counts :
       {Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none}) {
    for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, {0, 1}, uneven}) {
      run_case(on(nodes, {.counts = counts}));
      run_case(on(nodes, expanded({.counts = counts})));
      run_case(on(nodes, {.counts = counts, .by_rank = true}));
    }
  }
}

TEST(OverNodes, ExpertsNeedNotDivide) {
  for (int const experts : {1, 2, 5, 9}) {
    run_case(on({0, 0, 1, 1, 1}, {.experts = experts}));
    run_case(on({0, 0, 1, 1, 1}, expanded({.experts = experts})));
  }
}

TEST(OverNodes, RowsWithGaps) {
  run_case(on(uneven, {.extra_stride = 11}));
}

TEST(OverNodes, WorstCase) {
  for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, uneven}) {
    Case c = on(nodes, many());
    c.worst = true;
    run_case(c);
    run_case(expanded(c));
    c.cast = true;
    c.zero_padding = true;
    run_case(expanded(c));
    c.counts = Tokens::all_none;
    run_case(c);
  }
}

TEST(OverNodes, SumsWithWeightsAndBiases) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (bool const f32_partials : {false, true}) {
      Case c = on(uneven, {.tokens = 20, .experts = 14, .top_k = 6, .combine_dtype = dtype});
      c.f32_partials = f32_partials;
      for (Case const& one : {c, expanded(c)}) {
        run_with(one, {});
        run_with(one, {.biases = 1});
        run_with(one, {.biases = 2, .row_weights = true, .topk_weights = true});
      }
    }
  }
}

TEST(OverNodes, SumsWithoutSlots) {
  Case const c = on(uneven, {.tokens = 20, .by_rank = true});
  run_with(c, {.biases = 2, .row_weights = true, .topk_weights = true, .weights_of_all_ranks = true});
}

TEST(OverNodes, WeightsOfAllRanks) {
  for (Routing const routing : {Routing::uniform, Routing::sparse}) {
    Case const c = on(uneven, {.tokens = 20, .experts = 14, .top_k = 6, .routing = routing});
    run_with(c, {.topk_weights = true, .weights_of_all_ranks = true});
  }
}

TEST(OverNodes, BiasAloneWhereNothingWasSent) {
  run_with(on({0, 1, 1}, {.routing = Routing::none}), {.biases = 2});
  run_with(on({0, 1, 1}, {.routing = Routing::sparse}), {.biases = 1});
}

TEST(OverNodes, Cached) {
  for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, uneven}) {
    run_cached(on(nodes, many()));
    run_cached(on(nodes, expanded(many())));
    run_cached(on(nodes, {.by_rank = true}));
    run_cached(on(nodes, {.hidden = 300, .cast = true, .worst = true}));
    run_cached(on(nodes, {.counts = Tokens::first_only}));
  }
}

TEST(OverNodes, OutputsFromAnyPointer) {
  Case const c = on(uneven, many());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, rank);
    Handle const handle = buffer.dispatch(inputs.args()).handle;
    CombineInputs const outputs(p, rank, {});
    std::vector<std::byte> x(index(outputs.rows() * c.hidden) * size_of(c.combine_dtype));
    outputs.write_rows(x.data());
    ConstTensorView const view{x.data(), c.combine_dtype, {outputs.rows(), c.hidden}};
    outputs.check_result(buffer.combine(outputs.args(view, handle)));
  });
}

// Several calls queued, and the caller does nothing until the end.
TEST(OverNodes, AsynchronousCalls) {
  for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, uneven}) {
    Case const c = on(nodes, many());
    Problem const p = make_problem(c);
    run_ranks(c, [&](Communicator& communicator) {
      int const rank = communicator.rank();
      Buffer buffer(communicator, options_for(p, 6));
      RankInputs const inputs(p, rank);
      std::vector<Pending<Dispatched>> pending;
      for (int i = 0; i < 3; ++i) pending.push_back(buffer.dispatch_async(inputs.args()));
      Dispatched last;
      for (Pending<Dispatched>& one : pending) {
        last = one.get();
        DispatchChecker(p, rank).check_dispatch(last);
      }
      CombineInputs const outputs(p, rank, {.biases = 1});
      Tensor const x = buffer.allocate(c.combine_dtype, {outputs.rows(), c.hidden});
      outputs.write_rows(x.data<void>());
      outputs.check_result(buffer.combine_async(outputs.args(x, last.handle)).get());
    });
  }
}

// A rank that comes late holds up its node and others, and nobody loses rows.
TEST(OverNodes, RanksComeAtDifferentTimes) {
  Case const c = on(uneven, many());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    Random random(mix(c.seed, 77, static_cast<std::uint64_t>(communicator.rank())));
    for (int call = 0; call < 5; ++call) {
      std::this_thread::sleep_for(std::chrono::milliseconds{random.below(20)});
      round_trip(p, buffer);
    }
  });
}

// Nobody waits for rows where there are none: ranks are a call ahead of others, and their letters must not be in
// the way of those that others have yet to read.
TEST(OverNodes, CallsWithoutRowsFollowOneAnother) {
  for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, uneven}) {
    Case const c = on(nodes, {.routing = Routing::none});
    Problem const p = make_problem(c);
    run_ranks(c, [&](Communicator& communicator) {
      Buffer buffer(communicator, options_for(p));
      RankInputs const inputs(p, communicator.rank());
      Dispatched const routed = buffer.dispatch(inputs.args());
      for (int call = 0; call < 40; ++call) {
        (void)buffer.combine({.x = routed.x, .handle = routed.handle});
        if (call % 10 == 0) (void)buffer.dispatch({.x = inputs.args().x, .handle = routed.handle});
      }
      round_trip(p, buffer);
    });
  }
}

TEST(OverNodes, MistakesAreThrownOnEveryRank) {
  Case const c = on(uneven);
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, rank);
    std::vector<std::int64_t> ids(p.inputs[index(rank)].ids);
    DispatchArgs args = inputs.args();
    if (rank == 0) ids.at(0) = 1000;
    args.topk_idx.data = ids.data();
    auto const error = expect_throw<InvalidArgument>("id 1000", [&] { (void)buffer.dispatch(args); });
    check_names(error, {"topk_idx", "1000"});
    check_equal(error.rank(), 0, "the rank at fault");
    round_trip(p, buffer);
  });
}

TEST(OverNodes, TermsThatDifferNameTheRank) {
  Case const c = on(uneven);
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, communicator.rank());
    DispatchArgs args = inputs.args();
    if (communicator.rank() == 5) args.cast_to_fp8 = true;
    auto const error = expect_throw<InvalidArgument>("cast_to_fp8", [&] { (void)buffer.dispatch(args); });
    check_names(error, {"rank 5", "cast_to_fp8", "as on rank 0"});
    round_trip(p, buffer);
  });
}

TEST(OverNodes, AResetBringsABufferBack) {
  Case const c = on(uneven, many());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 4));
    for (int i = 0; i < 2; ++i) {
      round_trip(p, buffer);
      buffer.reset();
    }
    round_trip(p, buffer);
  });
}

TEST(OverNodes, TheLayoutCountsTokensOfNodes) {
  for (Nodes const& nodes : all_shapes()) {
    Case const c = on(nodes, {.tokens = 20, .top_k = 4});
    Problem const p = make_problem(c);
    run_ranks(c, [&](Communicator& communicator) {
      Buffer const buffer(communicator, options_for(p));
      RankInputs const inputs(p, communicator.rank());
      check_layout(p, communicator.rank(), buffer.get_layout(inputs.ids()));
    });
  }
}

TEST(OverNodes, AsProcesses) {
  Case c = many();
  c.launch = Launch::processes;
  for (Nodes const& nodes : {Nodes{0, 0, 1, 1}, uneven}) {
    run_case(on(nodes, c));
    run_case(on(nodes, expanded(c)));
  }
}

// Two buffers of one job at once: neither takes what is the other's.
TEST(OverNodes, TwoBuffers) {
  Case const c = on(uneven, many());
  Problem const p = make_problem(c);
  Problem const other = with_other_values(p);
  run_ranks(c, [&](Communicator& communicator) {
    Buffer first(communicator, options_for(p));
    Buffer second(communicator, options_for(p));
    for (int i = 0; i < 2; ++i) {
      round_trip(p, first);
      round_trip(other, second);
    }
  });
}

Case random_node_case(Random& random) {
  Case c{.ranks = random.between(2, 8), .tokens = random.between(1, 60), .hidden = random.between(1, 600)};
  c.nodes = random_nodes(c.ranks, 5, random);
  c.experts = random.between(1, 40);
  c.top_k = random.between(1, 8);
  choose_traffic(c, random);
  choose_payload(c, random);
  c.by_rank = random.chance(15);
  c.layout = !c.by_rank && random.chance(50) ? OutputLayout::expanded : OutputLayout::flat;
  c.alignment = c.expanded() ? random.between(1, 8) : 1;
  c.worst = !c.by_rank && random.chance(20);
  c.f32_partials = random.chance(30);
  c.workers = random.between(1, 3);
  c.seed = random.bits();
  return c;
}

TEST(OverNodes, RandomCasesMatchTheReference) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(mix(fresh_seed(), 18));
  for (int i = 0; i < by_scale(20, 150); ++i) {
    Case const c = random_node_case(random);
    CombineExtras extras{random.between(0, 2), random.chance(30), random.chance(50)};
    extras.weights_of_all_ranks = c.by_rank || (!c.expanded() && random.chance(50));
    if (!run_with(c, extras)) return;
  }
}

}  // namespace
}  // namespace switchyard::test
