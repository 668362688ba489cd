// Round trips with a given kind of GPU memory.
#pragma once

#include "gpu/throughput/gpu_flow.hpp"

namespace switchyard::test {

inline void memory_round_trip(Problem const& p, Communicator& communicator) {
  DeviceRank device(communicator.rank());
  communicator.barrier();
  Buffer buffer(communicator, gpu_options_for(p));
  gpu_round_trip(p, buffer, device, {.combine = {.biases = 2, .topk_weights = true}});
  gpu_round_trip(p, buffer, device, {.outputs = OutputsIn::any_pointer});
  communicator.barrier();
}

// `unless` takes the error of a kind that this machine does not have; without it that fails the test.
inline void run_memory_case(Case const& c, char const* kind, std::function<void(Unsupported const&)> unless = {}) {
  Problem const p = make_problem(c);
  setenv("SWITCHYARD_GPU_MEMORY", kind, 1);
  run_ranks(c.launch, c.ranks, text("SWITCHYARD_GPU_MEMORY=", kind, " ", c), [&](Communicator& communicator) {
    try {
      memory_round_trip(p, communicator);
    } catch (Unsupported const& error) {
      if (!unless) throw;
      unless(error);
      communicator.barrier();
    }
  });
  unsetenv("SWITCHYARD_GPU_MEMORY");
}

}  // namespace switchyard::test
