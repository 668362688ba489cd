// A rank is late on the CUDA engine: all ranks get a Timeout, the CUDA context stays usable, and after a reset
// calls work again.
#pragma once

#include "gpu/throughput/gpu_flow.hpp"
#include "support/late.hpp"

namespace switchyard::test {

struct OnGpuRank {
  Problem const& p;
  Buffer& buffer;
  DeviceRank& device;
  int rank;
  Lateness lateness;
};

template <typename Body>
void run_late(Case const& c, Body const& body) {
  Problem const problem = make_problem(c);
  Shared<std::atomic<int>> const gave_up;
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = gpu_options_for(problem, 6);
    options.timeout = late_timeout();
    Buffer buffer(communicator, options);
    gpu_round_trip(problem, buffer, device);
    body(OnGpuRank{problem, buffer, device, communicator.rank(), Lateness(*gave_up, communicator)});
    communicator.barrier();
  });
}

inline DispatchArgs uploaded(OnGpuRank const& on, RankInputs const& inputs) {
  on.device.clear();
  DispatchArgs args = on.device.upload(inputs.args());
  args.num_sms = 4;
  return args;
}

inline void reset_and_go_on(OnGpuRank const& on) {
  on.buffer.reset();
  for (int i = 0; i < 2; ++i) gpu_round_trip(on.p, on.buffer, on.device);
}

inline void expect_dispatches_timed_out(Launch launch) {
  run_late({.launch = launch, .ranks = 3, .tokens = 20, .hidden = 64}, [](OnGpuRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int const late : {1, 0, 2, 2}) {
      DispatchArgs const args = uploaded(on, inputs);
      on.lateness.expect_timeout(late, [&] { (void)on.buffer.dispatch(args); });
      reset_and_go_on(on);
    }
  });
}

// After the reset the combine is made again, with the handle from before it.
inline void expect_combines_timed_out(Launch launch) {
  run_late({.launch = launch, .ranks = 3, .tokens = 20, .hidden = 64}, [](OnGpuRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int const late : {2, 0}) {
      DispatchArgs const args = uploaded(on, inputs);
      Dispatched const held = on.buffer.dispatch(args);
      on.buffer.synchronize();
      CombineInputs const outputs(on.p, on.rank, {});
      Tensor keep;
      ConstTensorView const x = place_outputs(on.device, on.buffer, outputs, on.p, OutputsIn::any_pointer, keep);
      CombineArgs combine = on.device.upload(outputs.args(x, held.handle));
      combine.num_sms = 4;
      on.lateness.expect_timeout(late, [&] { (void)on.buffer.combine(combine); });
      on.buffer.reset();
      DispatchChecker(on.p, on.rank, Travel::fresh, EngineKind::cuda).check_dispatch(on.device.download(held));
      Combined const seen = on.buffer.combine(combine);
      on.buffer.synchronize();
      outputs.check_result(on.device.download(seen));
      reset_and_go_on(on);  // nothing has failed
    }
  });
}

}  // namespace switchyard::test
