// Worst-case mode in a CUDA graph: captured once, replayed with other contents in the same tensors. A file of its
// own: ranks are processes, and a process that has used CUDA must not fork.
#include "gpu/gpu_flow.hpp"

namespace switchyard::test {
namespace {

class GpuGraph : public GpuProcessTest {};

constexpr int replays = 12;

// What a graph works on: tensors that stay where they are.
struct Captured {
  DispatchArgs args;
  Dispatched routed;
  Tensor outputs;
  Combined combined;
  cudaGraphExec_t exec = nullptr;
};

void capture(Problem const& p, Buffer& buffer, DeviceRank& device, Captured& to) {
  RankInputs const inputs(p, buffer.communicator().rank());
  to.args = device.upload(inputs.args());
  to.outputs = buffer.allocate(p.the.combine_dtype, {to.args.num_worst_tokens, p.the.hidden});
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
  std::vector<std::byte> host(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype));
  outputs.write_rows(host.data());
  device.write(on.outputs, host.data());
  device.poison(on.routed.x);
  device.poison(on.combined.x);
  check_cuda(cudaGraphLaunch(on.exec, reinterpret_cast<cudaStream_t>(device.stream())), "cudaGraphLaunch");
  check_cuda(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(device.stream())), "replay");
  buffer.synchronize();
  DispatchChecker(p, rank, false, EngineKind::cuda).check_all(device.download(on.routed));
  outputs.check_result(device.download(on.combined));
}

void run_graph(Case base) {
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
    capture(problems.front(), buffer, device, captured);
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
