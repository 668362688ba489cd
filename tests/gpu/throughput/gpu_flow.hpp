// One rank's walk through a case on the CUDA engine. The checks are those of the CPU engine's suite.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include "gpu/throughput/device_rank.hpp"

namespace switchyard::test {

// Where a combine's expert outputs lie. `mixed` depends on the rank.
enum class OutputsIn : std::uint8_t { heap, any_pointer, odd_pointer, mixed };

struct GpuExtras {
  CombineExtras combine{};
  OutputsIn outputs = OutputsIn::heap;
  int num_sms = 4;
  bool odd_out = false;  // the last rank wants its sums where bulk copies do not go
};

// A child process asks the driver, because a process that has used CUDA must not fork.
inline bool gpu_usable() {
  static bool const usable = [] {
    pid_t const child = fork();
    if (child == 0) {
      int count = 0;
      _exit(cudaGetDeviceCount(&count) == cudaSuccess && count > 0 ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }();
  return usable;
}

// Ranks are processes. Each has a context with the default number of queues, because MPS has not enough for more.
class GpuProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!gpu_usable()) GTEST_SKIP() << "no GPU that this build can use";
  }
};

// Ranks are threads.
class GpuTest : public GpuProcessTest {
 protected:
  void SetUp() override {
    GpuProcessTest::SetUp();
    // Every rank of this process has streams of its own, which must not share a queue.
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  }
};

inline BufferOptions gpu_options_for(Problem const& p, int results = 4) {
  BufferOptions options = options_for(p, results);
  options.engine = EngineKind::cuda;
  options.num_sms = 4;
  options.heap_bytes += std::size_t{4} << 20U;
  return options;
}

inline ConstTensorView place_outputs(DeviceRank& device, Buffer& buffer, CombineInputs const& outputs,
                                     Problem const& p, OutputsIn where, Tensor& keep) {
  std::vector<std::byte> host(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype) + 1);
  outputs.write_rows(host.data());
  if (where == OutputsIn::mixed) where = static_cast<OutputsIn>(buffer.communicator().rank() % 3);
  ConstTensorView const view{host.data(), p.the.combine_dtype, {outputs.rows(), p.the.hidden}};
  if (where == OutputsIn::any_pointer) return device.upload(view);
  if (where == OutputsIn::odd_pointer) return device.upload(view, size_of(p.the.combine_dtype));
  keep = buffer.allocate(p.the.combine_dtype, {outputs.rows(), p.the.hidden});
  device.write(keep, host.data());
  return keep;
}

inline void gpu_combine(Problem const& p, Buffer& buffer, DeviceRank& device, Handle const& handle,
                        GpuExtras const& extras) {
  CombineInputs const outputs(p, buffer.communicator().rank(), extras.combine);
  Tensor keep;
  ConstTensorView const x = place_outputs(device, buffer, outputs, p, extras.outputs, keep);
  CombineArgs args = device.upload(outputs.args(x, handle));
  args.num_sms = extras.num_sms;
  Tensor room;
  if (extras.odd_out && buffer.communicator().rank() + 1 == p.the.ranks) {
    std::int64_t const tokens = handle.num_tokens();
    room = buffer.allocate(p.the.combine_dtype, {tokens * p.the.hidden + 1});
    args.out = {static_cast<std::byte*>(room.view().data) + size_of(p.the.combine_dtype),
                p.the.combine_dtype,
                {tokens, p.the.hidden}};
    args.out.device = Device::cuda;
  }
  Combined seen = buffer.combine(args);
  if (room.given()) seen.x = Tensor(args.out, nullptr);
  buffer.synchronize();
  outputs.check_result(device.download(seen));
}

inline Handle gpu_dispatch(Problem const& p, Buffer& buffer, DeviceRank& device, DispatchArgs args,
                           Travel travel = Travel::fresh) {
  args = device.upload(args);
  Dispatched const seen = buffer.dispatch(args);
  buffer.synchronize();
  DispatchChecker(p, buffer.communicator().rank(), travel, EngineKind::cuda).check_dispatch(device.download(seen));
  return seen.handle;
}

inline void gpu_round_trip(Problem const& p, Buffer& buffer, DeviceRank& device, GpuExtras const& extras = {}) {
  device.clear();
  RankInputs const inputs(p, buffer.communicator().rank());
  DispatchArgs args = inputs.args();
  args.num_sms = extras.num_sms;
  gpu_combine(p, buffer, device, gpu_dispatch(p, buffer, device, args), extras);
}

// Nothing is checked here, so that most of the time goes to the library. Until it fails.
inline void gpu_call_until_failure(Buffer& buffer, DeviceRank& device, Problem const& p) {
  RankInputs const inputs(p, buffer.communicator().rank());
  device.clear();
  DispatchArgs const args = device.upload(inputs.args());
  CombineInputs const outputs(p, buffer.communicator().rank(), {});
  Tensor keep;
  ConstTensorView const x = place_outputs(device, buffer, outputs, p, OutputsIn::heap, keep);
  for (;;) {
    Dispatched const received = buffer.dispatch(args);
    (void)buffer.combine(outputs.args(x, received.handle));
    buffer.synchronize();
  }
}

inline bool run_gpu_case(Case const& c, GpuExtras extras = {}) {
  Problem const p = make_problem(c);
  if (c.by_rank || !c.weights) extras.combine.topk_weights = extras.combine.weights_of_all_ranks;
  return run_ranks(c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    gpu_round_trip(p, buffer, device, extras);
    gpu_round_trip(p, buffer, device, extras);
    communicator.barrier();
  });
}

}  // namespace switchyard::test
