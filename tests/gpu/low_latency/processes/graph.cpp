// Low-latency mode in CUDA graphs: captured once, replayed with other tokens and routings in the same tensors.
// Ranks are processes, in a suite of its own: a process that has used CUDA must not fork.
#include "gpu/low_latency/gpu_engine.hpp"
#include "support/low_latency_kept.hpp"
#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

class GpuLowLatencyGraph : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {};

class Graph {
 public:
  template <typename Calls>
  Graph(RankMemory& memory, Calls const& calls) : stream_(reinterpret_cast<cudaStream_t>(memory.stream())) {
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    calls();
    check_cuda(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    check_cuda(cudaGraphInstantiate(&exec_, graph, 0), "cudaGraphInstantiate");
    check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  ~Graph() { cudaGraphExecDestroy(exec_); }
  Graph(Graph const&) = delete;
  Graph& operator=(Graph const&) = delete;
  void launch() const { check_cuda(cudaGraphLaunch(exec_, stream_), "cudaGraphLaunch"); }
  void wait() const { check_cuda(cudaStreamSynchronize(stream_), "replay"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_ = nullptr;
};

// All of them have the same number of tokens, because a graph keeps its shapes.
std::vector<SlotProblem> graph_problems(SlotCase c, int count) {
  c.launch = Launch::processes;
  c.counts = Tokens::equal;
  std::vector<SlotProblem> problems;
  Random random(c.seed);
  for (int i = 0; i < count; ++i) {
    c.seed = random.bits();
    c.routing =
        random.one_of({Routing::uniform, Routing::skewed, Routing::sparse, Routing::repeated, Routing::none});
    problems.push_back(make_slot_problem(c));
  }
  return problems;
}

LowLatencyReceived on_host(RankMemory& memory, LowLatencyReceived host) {
  for (Tensor* const t : {&host.x, &host.scales, &host.counts, &host.ranges, &host.source_token, &host.topk_idx,
                          &host.topk_weights}) {
    *t = memory.fetch(*t);
  }
  return host;
}

Tensor place_out(SlotProblem const& p, SlotRank& rank) {
  std::vector<std::byte> const bytes(index(p.tokens(rank.rank()) * p.the.hidden) * 2, std::byte{0xa5});
  return rank.memory.place({bytes.data(), p.the.combine_dtype, {p.tokens(rank.rank()), p.the.hidden}});
}

LowLatencyCombineArgs combine_args(SlotInputs const& inputs, SlotRank& rank, LowLatencyReceived const& received,
                                   Tensor const& x, Tensor const& out) {
  LowLatencyCombineArgs args;
  args.x = x;
  args.handle = received.handle;
  if (rank.c.by_expert()) args.topk_weights = inputs.weights();
  args.out = out;
  args.cuda_stream = rank.memory.stream();
  return args;
}

// A dispatch, experts that return what they get, and a combine.
LowLatencyReceived queue_layer(SlotInputs const& inputs, SlotRank& rank, LowLatencyBuffer& buffer,
                               Tensor const& out) {
  LowLatencyReceived received = buffer.dispatch(inputs.args());
  Tensor const outputs = buffer.outputs(received.handle, DType::bf16);
  check_cuda(cudaMemcpyAsync(outputs.data<void>(), received.x.data<void>(), span_bytes(outputs),
                             cudaMemcpyDeviceToDevice, reinterpret_cast<cudaStream_t>(rank.memory.stream())),
             "the experts");
  buffer.combine(combine_args(inputs, rank, received, outputs, out));
  return received;
}

// A dispatch and a combine in one graph.
void replay_whole(std::vector<SlotProblem> const& problems, SlotRank& rank, LowLatencyBuffer& buffer, int replays) {
  SlotInputs const inputs(problems.front(), rank.memory, rank.rank());
  Tensor const out = place_out(problems.front(), rank);
  LowLatencyReceived received;
  Graph const graph(rank.memory, [&] { received = queue_layer(inputs, rank, buffer, out); });
  Random random(mix(rank.c.seed, 8));
  for (int i = 0; i < replays; ++i) {
    SlotProblem const& p = problems[index(random.below(static_cast<std::int64_t>(problems.size())))];
    inputs.refresh(p, rank.memory, rank.rank());
    graph.launch();
    if (i % 20 != 0 && i > 10) continue;
    graph.wait();
    buffer.synchronize();
    SlotChecker const checker(p, rank.rank());
    checker.check_received(on_host(rank.memory, received));
    checker.check_combined(rank.memory.fetch(out));
  }
  graph.wait();
}

SlotCase whole_case(SlotLayout layout) {
  return {.launch = Launch::processes,
          .ranks = 4,
          .tokens = 24,
          .counts = Tokens::equal,
          .hidden = 512,
          .experts = 18,
          .top_k = 6,
          .layout = layout,
          .identity = true};
}

TEST_P(GpuLowLatencyGraph, ThousandsOfReplays) {
  SlotCase const c = whole_case(GetParam());
  auto const problems = graph_problems(c, 12);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    replay_whole(problems, rank, buffer, by_scale(200, 3000));
    slot_round_trip(problems.front(), rank, buffer);  // outside of graphs the buffer goes on
  });
}

// The replay needs all frames whose results the calls before it have released. Right after the launch the host is
// held up in a copy to memory that is not pinned.
void replay_after_calls(std::vector<SlotProblem> const& problems, SlotRank& rank, LowLatencyBuffer& buffer) {
  SlotInputs const inputs(problems.front(), rank.memory, rank.rank());
  Tensor const out = place_out(problems.front(), rank);
  Graph const graph(rank.memory, [&] {
    for (int layer = 0; layer < 4; ++layer) queue_layer(inputs, rank, buffer, out);
  });
  for (int i = 0; i < by_scale(5, 20); ++i) {
    SlotProblem const& p = problems[index(i) % problems.size()];
    inputs.refresh(p, rank.memory, rank.rank());
    for (int layer = 0; layer < 4; ++layer) queue_layer(inputs, rank, buffer, out);
    graph.launch();
    Tensor const sums = rank.memory.fetch(out);
    LowLatencyReceived const outside = queue_layer(inputs, rank, buffer, out);
    SlotChecker const checker(p, rank.rank());
    checker.check_received(on_host(rank.memory, outside));
    checker.check_combined(sums);
    checker.check_combined(rank.memory.fetch(out));
  }
  graph.wait();
}

TEST_P(GpuLowLatencyGraph, ReplaysRightAfterCalls) {
  SlotCase const c = whole_case(GetParam());
  auto const problems = graph_problems(c, 6);
  run_slot_buffers(c,
                   [&](SlotRank& rank, LowLatencyBuffer& buffer) { replay_after_calls(problems, rank, buffer); });
}

// Nothing comes between the release of a result and the capture of a dispatch into its frame.
TEST_P(GpuLowLatencyGraph, ACaptureRightAfterARelease) {
  SlotCase c = whole_case(GetParam());
  c.max_results = 1;
  auto const problems = graph_problems(c, 4);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    slot_round_trip(problems.front(), rank, buffer);
    replay_whole(problems, rank, buffer, 20);
  });
}

// As many results as there are frames, kept, and the frames have other bays; none if memory of this kind does not
// grow, on all ranks alike.
std::vector<std::unique_ptr<KeptTrip>> keep_all_frames(SlotProblem const& p, SlotRank& rank,
                                                       LowLatencyBuffer& buffer) {
  std::vector<std::unique_ptr<KeptTrip>> kept;
  for (int i = 0; i < rank.c.max_results; ++i) kept.push_back(std::make_unique<KeptTrip>(p, rank, buffer, true));
  try {
    KeptTrip(p, rank, buffer, true).release();
  } catch (InvalidArgument const& error) {
    check_names(error, {"max_results", "memory"});
    kept.clear();
  }
  return kept;
}

// One frame has another bay already when a graph gets it, the other gets another by that.
void replay_with_kept_results(std::vector<SlotProblem> const& problems, SlotRank& rank, LowLatencyBuffer& buffer) {
  SlotProblem const& first = problems.front();
  auto const kept = keep_all_frames(first, rank, buffer);
  if (kept.empty()) return;
  SlotInputs const inputs(first, rank.memory, rank.rank());
  std::vector<Tensor> const outs{place_out(first, rank), place_out(first, rank)};
  std::vector<LowLatencyReceived> results;
  Graph const graph(rank.memory, [&] {
    for (Tensor const& out : outs) results.push_back(queue_layer(inputs, rank, buffer, out));
  });
  auto const replay = [&](SlotProblem const& p) {
    inputs.refresh(p, rank.memory, rank.rank());
    graph.launch();
    graph.wait();
    buffer.synchronize();
    SlotChecker const checker(p, rank.rank());
    for (LowLatencyReceived const& result : results) checker.check_received(on_host(rank.memory, result));
    for (Tensor const& out : outs) checker.check_combined(rank.memory.fetch(out));
    for (auto const& one : kept) one->check_unchanged();
  };
  for (int i = 0; i < by_scale(5, 30); ++i) replay(problems[index(i) % problems.size()]);
  auto const error = expect_throw<InvalidArgument>("a dispatch into a frame of a graph",
                                                   [&] { (void)buffer.dispatch(inputs.args()); });
  check_names(error, {"max_results", "CUDA graph"});
  for (SlotProblem const& p : problems) {
    results.clear();
    slot_round_trip(p, rank, buffer);  // outside of graphs, in the graph's bays
    for (auto const& one : kept) one->check_unchanged();
    replay(p);
  }
}

TEST_P(GpuLowLatencyGraph, FramesWhoseResultsAreKept) {
  SlotCase const c = whole_case(GetParam());
  auto const problems = graph_problems(c, 6);
  run_slot_buffers(
      c, [&](SlotRank& rank, LowLatencyBuffer& buffer) { replay_with_kept_results(problems, rank, buffer); });
}

// A graph for each of the halves. Experts work between them, outside of graphs.
struct CapturedHalves {
  CapturedHalves(SlotProblem const& p, SlotRank& rank, LowLatencyBuffer& buffer)
      : inputs(p, rank.memory, rank.rank()),
        out(place_out(p, rank)),
        send(rank.memory, [&] { received = buffer.send_dispatch(inputs.args(), hook); }),
        receive(rank.memory, [&] { hook(rank.memory.stream()); }),
        outputs(buffer.outputs(received.handle, p.the.combine_dtype)),
        send_outputs(rank.memory,
                     [&] { buffer.send_combine(combine_args(inputs, rank, received, outputs, out), hook); }),
        receive_outputs(rank.memory, [&] { hook(rank.memory.stream()); }) {}
  SlotInputs inputs;
  Tensor out;
  LowLatencyReceived received;
  ReceiveHook hook;
  Graph send;
  Graph receive;
  Tensor outputs;
  Graph send_outputs;
  Graph receive_outputs;
};

void replay_halves(SlotProblem const& p, SlotRank& rank, LowLatencyBuffer& buffer, CapturedHalves const& on) {
  on.inputs.refresh(p, rank.memory, rank.rank());
  on.send.launch();
  on.receive.launch();
  on.receive.wait();
  buffer.synchronize();
  LowLatencyReceived const host = on_host(rank.memory, on.received);
  SlotChecker const checker(p, rank.rank());
  checker.check_received(host);
  std::vector<std::byte> const rows = outputs_of(checker, p, host);
  rank.memory.write(on.outputs, rows.data());
  std::vector<std::byte> const poison(index(on.out.view().numel()) * size_of(p.the.combine_dtype), std::byte{0xa5});
  // The graphs of the combine have no dispatch: each replay combines the same one again.
  for (int combine = 0; combine < 3; ++combine) {
    rank.memory.write(on.out, poison.data());
    on.send_outputs.launch();
    on.receive_outputs.launch();
    on.receive_outputs.wait();
    buffer.synchronize();
    checker.check_combined(rank.memory.fetch(on.out));
  }
}

TEST_P(GpuLowLatencyGraph, HalvesAndCasts) {
  for (SendCast const cast : {SendCast::none, SendCast::fp8, SendCast::fp8_ue8m0}) {
    SlotCase const c{.launch = Launch::processes,
                     .ranks = 3,
                     .tokens = 20,
                     .counts = Tokens::equal,
                     .hidden = 300,
                     .experts = 10,
                     .top_k = 4,
                     .cast = cast,
                     .layout = GetParam()};
    auto const problems = graph_problems(c, 10);
    run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
      auto const halves = std::make_unique<CapturedHalves>(problems.front(), rank, buffer);
      for (int i = 0; i < by_scale(20, 100); ++i) replay_halves(problems[index(i % 10)], rank, buffer, *halves);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, GpuLowLatencyGraph,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
