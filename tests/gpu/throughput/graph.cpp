// Worst-case mode in a CUDA graph: captured once, replayed with other contents in the same tensors. A suite of its
// own: ranks are processes, and a process that has used CUDA must not fork.
#include "gpu/throughput/gpu_flow.hpp"

namespace switchyard::test {
namespace {

class GpuGraph : public GpuProcessTest {};

constexpr int replays = 12;

// The tensors that a graph works on. They stay where they are.
struct Captured {
  DispatchArgs args;
  Dispatched routed;
  ConstTensorView outputs;
  Tensor outputs_in_heap;
  std::vector<Tensor> guards;  // in the heap; the graph must leave them alone
  Combined combined;
  cudaGraphExec_t exec = nullptr;
};

std::vector<std::byte> expert_outputs(Problem const& p, int rank, std::int64_t rows) {
  std::vector<std::byte> host(index(rows * p.the.hidden) * size_of(p.the.combine_dtype));
  CombineInputs(p, rank, {}).write_rows(host.data());
  return host;
}

void place_graph_outputs(Problem const& p, Buffer& buffer, DeviceRank& device, OutputsIn where, Captured& to) {
  std::int64_t const rows = to.args.num_worst_tokens;
  if (where == OutputsIn::heap) {
    to.outputs = to.outputs_in_heap = buffer.allocate(p.the.combine_dtype, {rows, p.the.hidden});
    return;
  }
  auto const host = expert_outputs(p, buffer.communicator().rank(), rows);
  to.outputs = device.upload({host.data(), p.the.combine_dtype, {rows, p.the.hidden}});
}

void capture_graph(Problem const& p, Buffer& buffer, DeviceRank& device, OutputsIn where, Captured& to) {
  RankInputs const inputs(p, buffer.communicator().rank());
  to.args = device.upload(inputs.args());
  place_graph_outputs(p, buffer, device, where, to);
  auto* const stream = reinterpret_cast<cudaStream_t>(device.stream());
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  to.routed = buffer.dispatch(to.args);
  CombineArgs combine;
  combine.x = to.outputs;
  combine.handle = to.routed.handle;
  combine.cuda_stream = device.stream();
  to.combined = buffer.combine(combine);
  check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check_cuda(cudaGraphInstantiate(&to.exec, graph, 0), "cudaGraphInstantiate");
  check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
  // Blocks are found by first fit: one that the graph uses and the engine has released would be among these.
  for (int i = 0; i < 16; ++i) {
    to.guards.push_back(buffer.allocate(DType::u8, {4096}));
    device.poison(to.guards.back());
  }
}

void check_guards(DeviceRank& device, Captured const& on) {
  for (Tensor const& guard : on.guards) {
    Tensor const seen = device.download(guard);
    auto const* const bytes = seen.data<std::uint8_t>();
    check(std::all_of(bytes, bytes + guard.view().numel(), [](std::uint8_t byte) { return byte == 0xa5; }),
          "a replay wrote into a tensor that is not its own");
  }
}

// Expert outputs do not depend on what was received, so that they can be written before the replay.
void replay(Problem const& p, Buffer& buffer, DeviceRank& device, Captured const& on) {
  int const rank = buffer.communicator().rank();
  RankInputs const inputs(p, rank);
  DispatchArgs const fresh = inputs.args();
  device.refresh(on.args.x, fresh.x);
  device.refresh(on.args.scales, fresh.scales);
  device.refresh(on.args.topk_idx, fresh.topk_idx);
  device.refresh(on.args.topk_weights, fresh.topk_weights);
  CombineInputs const outputs(p, rank, {});
  auto const host = expert_outputs(p, rank, outputs.rows());
  device.refresh(on.outputs, {host.data(), p.the.combine_dtype, {outputs.rows(), p.the.hidden}});
  device.poison(on.routed.x);
  device.poison(on.combined.x);
  check_cuda(cudaGraphLaunch(on.exec, reinterpret_cast<cudaStream_t>(device.stream())), "cudaGraphLaunch");
  check_cuda(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(device.stream())), "replay");
  buffer.synchronize();
  DispatchChecker(p, rank, Travel::fresh, EngineKind::cuda).check_dispatch(device.download(on.routed));
  outputs.check_result(device.download(on.combined));
  check_guards(device, on);
}

void run_graph(Case base, OutputsIn where = OutputsIn::heap) {
  base.launch = Launch::processes;
  base.counts = Tokens::equal;
  base.worst = true;
  std::vector<Problem> problems;
  for (int i = 0; i < replays; ++i) {
    Case c = base;
    c.seed = base.seed + static_cast<std::uint64_t>(i);
    c.routing = i % 3 == 1 ? Routing::skewed : i % 3 == 2 ? Routing::sparse : Routing::uniform;
    problems.push_back(make_problem(c));
  }
  run_ranks(base.launch, base.ranks, base, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(problems.front()));
    Captured captured;
    capture_graph(problems.front(), buffer, device, where, captured);
    for (Problem const& p : problems) replay(p, buffer, device, captured);
    check_cuda(cudaGraphExecDestroy(captured.exec), "cudaGraphExecDestroy");
    captured = {};
    Case plain = problems.front().the;
    plain.worst = false;
    gpu_round_trip(make_problem(plain), buffer, device);  // outside of graphs the buffer goes on
    communicator.barrier();
  });
}

TEST_F(GpuGraph, OtherContentsInTheSameTensors) {
  run_graph({.ranks = 4, .tokens = 60, .hidden = 512, .worst_rows = 4 * 60});
}

TEST_F(GpuGraph, Fp8) {
  run_graph({.ranks = 3, .tokens = 50, .hidden = 384, .dtype = DType::f8e4m3, .worst_rows = 3 * 50});
}

// The engine has blocks of its own: for cast rows, and for staged ones.
TEST_F(GpuGraph, CastAndAnyPointer) {
  run_graph({.ranks = 3, .tokens = 50, .hidden = 256, .cast = true, .worst_rows = 3 * 50}, OutputsIn::any_pointer);
}

// A call whose host waits for counts cannot be captured: it throws at once, and the buffer goes on.
TEST_F(GpuGraph, ACallThatWaits) {
  Case const c{.launch = Launch::processes, .ranks = 2, .tokens = 20, .hidden = 64};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    DispatchArgs const args = device.upload(inputs.args());
    auto* const stream = reinterpret_cast<cudaStream_t>(device.stream());
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    auto const error = expect_throw<InvalidArgument>("a captured dispatch", [&] { (void)buffer.dispatch(args); });
    check_names(error, {"num_worst_tokens"});
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
    gpu_round_trip(p, buffer, device);
    communicator.barrier();
  });
}

TEST_F(GpuGraph, Expanded) {
  run_graph({.ranks = 3,
             .tokens = 50,
             .hidden = 256,
             .layout = OutputLayout::expanded,
             .alignment = 8,
             .zero_padding = true,
             .worst_rows = 3 * 50 * 2 + 8 * 8});
}

}  // namespace
}  // namespace switchyard::test
