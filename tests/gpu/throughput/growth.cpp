// A heap that grows: results that are held, worst cases, copies of expert outputs and graphs need more than it has
// at first. And results that other streams still read when they are released.
#include <chrono>
#include <thread>

#include "gpu/throughput/gpu_flow.hpp"
#include "layout/routing.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t little = std::size_t{2} << 20U;  // the least that the GPU has

BufferOptions growing_options_for(Problem const& p) {
  BufferOptions options = gpu_options_for(p);
  options.heap_bytes = 0;
  options.initial_heap_bytes = little;
  return options;
}

// Large enough that two results do not fit into what there is at first.
Case large_case(Launch launch) {
  return {.launch = launch, .ranks = 3, .tokens = 700, .counts = Tokens::varied, .hidden = 1024};
}

struct Held {
  Problem problem;
  Dispatched result;
};

Held dispatch_to_hold(Problem problem, Buffer& buffer, DeviceRank& device) {
  device.clear();
  RankInputs const inputs(problem, buffer.communicator().rank());
  Held held{.problem = std::move(problem), .result = buffer.dispatch(device.upload(inputs.args()))};
  buffer.synchronize();
  check(held.result.handle.routing()->rounds.empty(), "a dispatch ran in rounds, although its heap may grow");
  return held;
}

void check_held(Held const& held, Buffer& buffer, DeviceRank& device) {
  DispatchChecker(held.problem, buffer.communicator().rank(), Travel::fresh, EngineKind::cuda)
      .check_dispatch(device.download(held.result));
}

// Every result stays as it is while later ones come, wherever the heap has grown to, and each combines.
void run_held(Launch launch, bool one_has_a_limit) {
  Case c = large_case(launch);
  run_ranks(launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = growing_options_for(make_problem(c));
    if (one_has_a_limit && communicator.rank() == 1) options.heap_bytes = std::size_t{256} << 20U;
    Buffer buffer(communicator, options);
    std::size_t const at_first = buffer.heap_bytes_now();
    std::vector<Held> all;
    for (int i = 0; i < 12; ++i) {
      c.seed = static_cast<std::uint64_t>(100 + i);
      all.push_back(dispatch_to_hold(make_problem(c), buffer, device));
    }
    if (options.heap_bytes == 0) check(buffer.heap_bytes_now() > at_first, "the heap has not grown");
    for (Held const& held : all) check_held(held, buffer, device);
    for (Held const& held : all) {
      device.clear();
      gpu_combine(held.problem, buffer, device, held.result.handle,
                  {.combine = {.topk_weights = true}, .outputs = OutputsIn::any_pointer});
    }
    communicator.barrier();
    all.clear();
    std::size_t const before = buffer.heap_bytes_now();
    std::size_t const given_back = buffer.trim();
    check_equal(buffer.heap_bytes_now() + given_back, before, "bytes now and given back");
    if (options.heap_bytes == 0) check(given_back > 0, "nothing was given back, and all is free");
    // Not all trim at the same time as others dispatch: peers' mappings follow.
    for (int i = 0; i < 3; ++i) {
      gpu_round_trip(make_problem(c), buffer, device, {.outputs = OutputsIn::any_pointer});
      if (communicator.rank() == i) static_cast<void>(buffer.trim());
    }
    communicator.barrier();
  });
}

class GpuGrowth : public GpuProcessTest {};

TEST_F(GpuGrowth, HeldResultsOfProcesses) {
  run_held(Launch::processes, false);
}

TEST_F(GpuGrowth, OneProcessHasALimit) {
  run_held(Launch::processes, true);
}

// A worst case is known before any row moves; in a graph its memory is the graph's.
TEST_F(GpuGrowth, AWorstCaseInAGraph) {
  Case c = large_case(Launch::processes);
  c.counts = Tokens::equal;
  c.worst = true;
  c.worst_rows = std::int64_t{c.ranks} * c.tokens;
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, growing_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    DispatchArgs const args = device.upload(inputs.args());
    auto* const stream = reinterpret_cast<cudaStream_t>(device.stream());
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    Dispatched const routed = buffer.dispatch(args);
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check_cuda(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    check(buffer.heap_bytes_now() > little, "the heap has not grown");
    for (int replay = 0; replay < 3; ++replay) {
      device.poison(routed.x);
      communicator.barrier();
      check_cuda(cudaGraphLaunch(exec, stream), "cudaGraphLaunch");
      check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
      DispatchChecker(p, communicator.rank(), Travel::fresh, EngineKind::cuda)
          .check_dispatch(device.download(routed));
    }
    check_cuda(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
    communicator.barrier();
  });
}

void busy(void* milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds{reinterpret_cast<std::intptr_t>(milliseconds)});
}

// Another stream copies a result that was released before the copy began. Whoever writes there too early spoils it.
void read_elsewhere(Problem const& p, Buffer& buffer, DeviceRank& device, cudaStream_t other) {
  Held held = dispatch_to_hold(p, buffer, device);
  TensorView const view = held.result.x.view();
  std::size_t const bytes = span_bytes(held.result.x);
  std::vector<std::byte> const expected = [&] {
    Tensor const seen = device.download(held.result.x);
    auto const* const from = static_cast<std::byte const*>(seen.view().data);
    return std::vector<std::byte>(from, from + bytes);
  }();
  void* copy = nullptr;
  check_cuda(cudaMalloc(&copy, bytes + 1), "cudaMalloc");
  check_cuda(cudaLaunchHostFunc(other, busy, reinterpret_cast<void*>(std::intptr_t{200})), "cudaLaunchHostFunc");
  check_cuda(cudaMemcpyAsync(copy, view.data, bytes, cudaMemcpyDeviceToDevice, other), "cudaMemcpyAsync");
  record_stream(view.data, reinterpret_cast<std::uintptr_t>(other));
  Case c = p.the;
  held = {};
  for (int i = 0; i < 3; ++i) {
    c.seed = static_cast<std::uint64_t>(500 + i);
    static_cast<void>(dispatch_to_hold(make_problem(c), buffer, device));
  }
  check_cuda(cudaStreamSynchronize(other), "cudaStreamSynchronize");
  std::vector<std::byte> seen(bytes);
  check_cuda(cudaMemcpy(seen.data(), copy, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
  check_cuda(cudaFree(copy), "cudaFree");
  check(seen == expected, "a result was overwritten while another stream read it");
}

TEST_F(GpuGrowth, AnotherStreamReadsAReleasedResult) {
  Case const c = large_case(Launch::processes);
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    cudaStream_t other = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "cudaStreamCreate");
    {
      Buffer buffer(communicator, growing_options_for(p));
      for (int i = 0; i < 2; ++i) read_elsewhere(p, buffer, device, other);
      communicator.barrier();
    }
    check_cuda(cudaStreamDestroy(other), "cudaStreamDestroy");
    communicator.barrier();
  });
}

class GpuGrowthThreads : public GpuTest {};

TEST_F(GpuGrowthThreads, HeldResults) {
  run_held(Launch::threads, false);
}

}  // namespace
}  // namespace switchyard::test
