// Jobs of several nodes on the CUDA engine: the rank's nodes are played, and all may share one GPU. A dispatch
// gives what it gives on one node, and a combine sums by the tree of the oracle, bitwise as on the CPU engine.
#include <algorithm>

#include "gpu/throughput/gpu_flow.hpp"
#include "layout/experts.hpp"
#include "support/cached.hpp"
#include "support/layout_check.hpp"
#include "support/random_traffic.hpp"

namespace switchyard::test {
namespace {

using Nodes = std::vector<int>;

// By rank, the node: of equal size, one rank alone on a node, sizes that differ, ranks that do not follow one
// another.
std::vector<Nodes> all_shapes() {
  return {{0, 0, 1, 1}, {0, 1}, {0, 1, 1, 1}, {0, 0, 1, 1, 1, 2}, {0, 1, 2}, {0, 1, 1, 0, 2}};
}
Nodes const even{0, 0, 1, 1};
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

// Several tokens a chunk, and several chunks a node, in rows of odd sizes; and in rows that kernels move 16 bytes
// at a time.
Case odd() {
  return {.tokens = 60, .hidden = 133, .experts = 14, .top_k = 5};
}
Case wide() {
  return {.tokens = 300, .hidden = 2048, .experts = 14, .top_k = 5};
}

class GpuNodes : public GpuTest {};

TEST_F(GpuNodes, EveryShape) {
  for (Nodes const& nodes : all_shapes()) {
    run_gpu_case(on(nodes));
    run_gpu_case(on(nodes, expanded({.top_k = 3})));
    run_gpu_case(on(nodes, {.by_rank = true}));
    run_gpu_case(on(nodes, odd()));
    run_gpu_case(on(nodes, expanded(odd())));
  }
}

TEST_F(GpuNodes, WideRows) {
  for (Nodes const& nodes : {even, uneven}) {
    run_gpu_case(on(nodes, wide()));
    run_gpu_case(on(nodes, expanded(wide())));
  }
}

TEST_F(GpuNodes, EveryPayload) {
  for (Nodes const& nodes : {even, uneven}) {
    for (DType const dtype : {DType::bf16, DType::f16, DType::f32, DType::f8e4m3}) {
      Case c = on(nodes, odd());
      c.dtype = dtype;
      c.combine_dtype = dtype == DType::f8e4m3 ? DType::bf16 : dtype;
      run_gpu_case(c);
      run_gpu_case(expanded(c));
      c.cast = dtype != DType::f8e4m3;
      c.scales_by_column = true;
      run_gpu_case(c);
    }
  }
}

TEST_F(GpuNodes, AnyHidden) {
  for (std::int64_t const hidden : {1, 7, 128, 129, 7168})
    run_gpu_case(on({0, 0, 1}, {.tokens = hidden > 1000 ? 5 : 20, .hidden = hidden, .dtype = DType::f8e4m3}));
}

TEST_F(GpuNodes, AnyTopK) {
  for (int const top_k : {1, 8, 64}) {
    Case const c = on({0, 1, 1}, {.hidden = 9, .experts = 70, .top_k = top_k});
    run_gpu_case(c);
    run_gpu_case(expanded(c));
  }
}

TEST_F(GpuNodes, IdsOfBothSizesAndNoWeights) {
  for (DType const ids : {DType::i32, DType::i64}) {
    Case c = on(uneven, {.id_dtype = ids});
    run_gpu_case(c);
    c.weights = false;
    run_gpu_case(c);
    run_gpu_case(expanded(c));
  }
}

TEST_F(GpuNodes, EveryRouting) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                                Routing::none, Routing::repeated}) {
    Case c = odd();
    c.routing = routing;
    for (Nodes const& nodes : {even, Nodes{0, 1, 1, 1}}) {
      run_gpu_case(on(nodes, c));
      run_gpu_case(on(nodes, expanded(c)));
    }
  }
}

TEST_F(GpuNodes, TokenCountsDiffer) {
  for (Tokens const counts :
       {Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none}) {
    for (Nodes const& nodes : {even, Nodes{0, 1}}) {
      run_gpu_case(on(nodes, {.counts = counts}));
      run_gpu_case(on(nodes, expanded({.counts = counts})));
      run_gpu_case(on(nodes, {.counts = counts, .by_rank = true}));
    }
  }
}

TEST_F(GpuNodes, RowsWithGaps) {
  run_gpu_case(on(uneven, {.extra_stride = 11}));
}

// More tokens in a chunk than a launch takes.
TEST_F(GpuNodes, TinyRows) {
  run_gpu_case(on(even, {.tokens = 9000, .hidden = 1, .experts = 8, .top_k = 2}));
}

TEST_F(GpuNodes, WorstCase) {
  for (Nodes const& nodes : {even, uneven}) {
    Case c = on(nodes, odd());
    c.worst = true;
    run_gpu_case(c);
    run_gpu_case(expanded(c));
    c.cast = true;
    c.zero_padding = true;
    run_gpu_case(expanded(c));
    c.counts = Tokens::all_none;
    run_gpu_case(c);
  }
}

TEST_F(GpuNodes, SumsWithWeightsAndBiases) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::int64_t const hidden : {64, 100}) {
      for (bool const f32_partials : {false, true}) {
        Case c = on(uneven, {.tokens = 20, .hidden = hidden, .experts = 14, .top_k = 6, .combine_dtype = dtype});
        c.f32_partials = f32_partials;
        for (Case const& one : {c, expanded(c)}) {
          run_gpu_case(one, {.combine = {.biases = 1}});
          run_gpu_case(one, {.combine = {.biases = 2, .row_weights = true, .topk_weights = true}});
        }
      }
    }
  }
}

TEST_F(GpuNodes, WeightsOfAllRanks) {
  for (Routing const routing : {Routing::uniform, Routing::sparse}) {
    Case const c = on(uneven, {.tokens = 20, .experts = 14, .top_k = 6, .routing = routing});
    run_gpu_case(c, {.combine = {.topk_weights = true, .weights_of_all_ranks = true}});
  }
  run_gpu_case(on(uneven, {.tokens = 20, .by_rank = true}),
               {.combine = {.biases = 2, .row_weights = true, .topk_weights = true, .weights_of_all_ranks = true}});
}

TEST_F(GpuNodes, BiasAloneWhereNothingWasSent) {
  run_gpu_case(on({0, 1, 1}, {.routing = Routing::none}), {.combine = {.biases = 2}});
  run_gpu_case(on({0, 1, 1}, {.routing = Routing::sparse}), {.combine = {.biases = 1}});
}

TEST_F(GpuNodes, OutputsFromAnyPointer) {
  for (OutputsIn const outputs : {OutputsIn::any_pointer, OutputsIn::odd_pointer, OutputsIn::mixed}) {
    run_gpu_case(on(uneven, odd()), {.outputs = outputs, .odd_out = true});
    run_gpu_case(on(even, wide()), {.outputs = outputs, .odd_out = true});
  }
}

// Dispatches anew, and then along that handle.
void run_cached_on_gpu(Case const& c) {
  Problem const first = make_problem(c);
  Problem const second = with_other_values(first);
  run_ranks(c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(first, 6));
    RankInputs const inputs(first, communicator.rank());
    Handle const handle = gpu_dispatch(first, buffer, device, inputs.args());
    RankInputs const others(second, communicator.rank());
    gpu_combine(second, buffer, device,
                gpu_dispatch(second, buffer, device, others.cached_args(handle), Travel::cached), {});
    if (c.by_rank) return;
    DispatchArgs with_ids = others.cached_args(handle);
    with_ids.topk_idx = others.args().topk_idx;
    with_ids.topk_weights = others.args().topk_weights;
    gpu_combine(second, buffer, device, gpu_dispatch(second, buffer, device, with_ids, Travel::cached_with_ids),
                {.combine = {.topk_weights = true}});
  });
}

TEST_F(GpuNodes, Cached) {
  for (Nodes const& nodes : {even, uneven}) {
    run_cached_on_gpu(on(nodes, odd()));
    run_cached_on_gpu(on(nodes, expanded(odd())));
    run_cached_on_gpu(on(nodes, {.by_rank = true}));
    run_cached_on_gpu(on(nodes, {.hidden = 300, .cast = true, .worst = true}));
    run_cached_on_gpu(on(nodes, {.counts = Tokens::first_only}));
  }
}

TEST_F(GpuNodes, AsynchronousCalls) {
  Case const c = on(uneven, odd());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    DeviceRank device(rank);
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p, 6));
    RankInputs const inputs(p, rank);
    DispatchArgs const args = device.upload(inputs.args());
    std::vector<Pending<Dispatched>> pending;
    for (int i = 0; i < 3; ++i) pending.push_back(buffer.dispatch_async(args));
    Dispatched last;
    for (Pending<Dispatched>& one : pending) {
      last = one.get();
      DispatchChecker(p, rank, Travel::fresh, EngineKind::cuda).check_dispatch(device.download(last));
    }
    gpu_combine(p, buffer, device, last.handle, {.combine = {.biases = 1}});
  });
}

// A result that nobody keeps is written all the same, and not where the next one lies.
TEST_F(GpuNodes, AsynchronousCombines) {
  Case const c = on(uneven, odd());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    DeviceRank device(rank);
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p, 8));
    Handle const handle = gpu_dispatch(p, buffer, device, RankInputs(p, rank).args());
    CombineInputs const outputs(p, rank, {.biases = 1, .topk_weights = true});
    Tensor keep;
    for (OutputsIn const where : {OutputsIn::heap, OutputsIn::odd_pointer}) {
      device.clear();
      ConstTensorView const x = place_outputs(device, buffer, outputs, p, where, keep);
      CombineArgs const args = device.upload(outputs.args(x, handle));
      static_cast<void>(buffer.combine_async(args));
      std::vector<Pending<Combined>> pending;
      for (int i = 0; i < 3; ++i) pending.push_back(buffer.combine_async(args));
      for (Pending<Combined>& one : pending) outputs.check_result(device.download(one.get()));
    }
  });
}

// Found out after the opening, when rows may be under way: all ranks throw, and the next calls are right. The cast
// is under way, too.
TEST_F(GpuNodes, TooFewRowsOnOneNode) {
  for (bool const cast : {false, true}) {
    Case c = on(uneven, odd());
    c.cast = cast;
    c.worst = true;
    Problem const p = make_problem(c);
    run_ranks(c, [&](Communicator& communicator) {
      DeviceRank device(communicator.rank());
      communicator.barrier();
      Buffer buffer(communicator, gpu_options_for(p));
      RankInputs const inputs(p, communicator.rank());
      for (int i = 0; i < 10; ++i) {
        device.clear();
        DispatchArgs args = device.upload(inputs.args());
        args.num_worst_tokens = 1;
        auto const error = expect_throw<InvalidArgument>("one row", [&] { (void)buffer.dispatch(args); });
        check_names(error, {"num_worst_tokens", "rows received"});
      }
      gpu_round_trip(p, buffer, device);
    });
  }
}

TEST_F(GpuNodes, NumbersOfRowsReceived) {
  Case const c = on(uneven, odd());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    DispatchArgs args = device.upload(RankInputs(p, communicator.rank()).args());
    auto const local = static_cast<std::int64_t>(ExpertSplit(c.experts, c.ranks).count(communicator.rank()));
    if (local == 0) throw std::logic_error("expected a case in which every rank has experts");
    std::vector<std::int32_t> before(index(local), 7);
    ConstTensorView const placed = device.upload({before.data(), DType::i32, {local}});
    args.received_per_expert = {const_cast<void*>(placed.data), DType::i32, {local}};
    args.received_per_expert.device = Device::cuda;
    Dispatched const seen = buffer.dispatch(args);
    Tensor const numbers = device.download(Tensor(args.received_per_expert, nullptr));
    for (std::int64_t expert = 0; expert < local; ++expert)
      check_equal(numbers.data<std::int32_t>()[expert], 7 + seen.handle.real_tokens_per_expert()[index(expert)],
                  "rows of local expert ", expert);
  });
}

TEST_F(GpuNodes, MistakesAreThrownOnEveryRank) {
  Case const c = on(uneven);
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    int const rank = communicator.rank();
    DeviceRank device(rank);
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, rank);
    std::vector<std::int64_t> ids(p.inputs[index(rank)].ids);
    DispatchArgs args = inputs.args();
    if (rank == 0) ids.at(0) = 1000;
    args.topk_idx.data = ids.data();
    DispatchArgs const wrong = device.upload(args);
    auto const error = expect_throw<InvalidArgument>("id 1000", [&] { (void)buffer.dispatch(wrong); });
    check_names(error, {"topk_idx", "1000"});
    check_equal(error.rank(), 0, "the rank at fault");
    gpu_round_trip(p, buffer, device);
  });
}

TEST_F(GpuNodes, TermsThatDifferNameTheRank) {
  Case const c = on(uneven);
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    DispatchArgs args = device.upload(inputs.args());
    if (communicator.rank() == 5) args.cast_to_fp8 = true;
    auto const error = expect_throw<InvalidArgument>("cast_to_fp8", [&] { (void)buffer.dispatch(args); });
    check_names(error, {"rank 5", "cast_to_fp8", "as on rank 0"});
    gpu_round_trip(p, buffer, device);
  });
}

TEST_F(GpuNodes, AResetBringsABufferBack) {
  Case const c = on(uneven, odd());
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p, 4));
    for (int i = 0; i < 2; ++i) {
      gpu_round_trip(p, buffer, device);
      buffer.reset();
    }
    gpu_round_trip(p, buffer, device);
  });
}

TEST_F(GpuNodes, TheLayoutCountsTokensOfNodes) {
  for (Nodes const& nodes : all_shapes()) {
    Case const c = on(nodes, {.tokens = 20, .top_k = 4});
    Problem const p = make_problem(c);
    run_ranks(c, [&](Communicator& communicator) {
      DeviceRank device(communicator.rank());
      communicator.barrier();
      Buffer const buffer(communicator, gpu_options_for(p));
      RankInputs const inputs(p, communicator.rank());
      Layout const layout = buffer.get_layout(device.upload(inputs.ids()));
      check_layout(p, communicator.rank(), device.download(layout));
    });
  }
}

// A graph would replay kernels without their hosts.
TEST_F(GpuNodes, CapturesAreRefused) {
  Case c = on({0, 1});
  c.worst = true;
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    DispatchArgs args = device.upload(inputs.args());
    args.cuda_stream = device.stream();
    auto const stream = reinterpret_cast<cudaStream_t>(device.stream());
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    auto const error = expect_throw<InvalidArgument>("a capture", [&] { (void)buffer.dispatch(args); });
    check_names(error, {"cuda_stream", "graph", "several nodes"});
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
    gpu_round_trip(p, buffer, device);
  });
}

Case random_node_case(Random& random) {
  Case c{.ranks = random.between(2, 6), .tokens = random.between(1, 60), .hidden = random.between(1, 600)};
  c.nodes = random_nodes(c.ranks, 3, random);
  c.experts = random.between(1, 40);
  c.top_k = random.between(1, 8);
  choose_traffic(c, random);
  choose_payload(c, random);
  c.by_rank = random.chance(15);
  c.layout = !c.by_rank && random.chance(50) ? OutputLayout::expanded : OutputLayout::flat;
  c.alignment = c.expanded() ? random.between(1, 8) : 1;
  c.worst = !c.by_rank && random.chance(20);
  c.f32_partials = random.chance(30);
  c.seed = random.bits();
  return c;
}

TEST_F(GpuNodes, RandomCasesMatchTheReference) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(mix(fresh_seed(), 19));
  for (int i = 0; i < by_scale(20, 60); ++i) {
    Case const c = random_node_case(random);
    CombineExtras extras{random.between(0, 2), random.chance(30), random.chance(50)};
    extras.weights_of_all_ranks = c.by_rank || (!c.expanded() && random.chance(50));
    if (!run_gpu_case(c, {.combine = extras})) return;
  }
}

class GpuNodeProcesses : public GpuProcessTest {};

TEST_F(GpuNodeProcesses, RoundTrips) {
  Case c = odd();
  c.launch = Launch::processes;
  for (Nodes const& nodes : {even, Nodes{0, 0, 0, 0, 1, 1, 1, 1}}) {
    run_gpu_case(on(nodes, c));
    run_gpu_case(on(nodes, expanded(c)));
  }
}

}  // namespace
}  // namespace switchyard::test
