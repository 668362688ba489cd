// A rank leaves the job in good order; a dispatch of the others throws PeerLost.
#pragma once

#include "gpu/throughput/gpu_flow.hpp"

namespace switchyard::test {

inline void expect_leaver_lost(Launch launch) {
  constexpr int leaver = 1;
  Case const c{.launch = launch, .ranks = 3, .tokens = 10, .hidden = 64};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, "a peer leaves", [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    RankInputs const inputs(p, communicator.rank());
    Buffer buffer(communicator, gpu_options_for(p));
    gpu_round_trip(p, buffer, device);
    if (communicator.rank() == leaver) return;
    DispatchArgs const args = device.upload(inputs.args());
    auto const error = expect_throw<PeerLost>("a dispatch", [&] { (void)buffer.dispatch(args); });
    check_equal(error.peer(), leaver, "peer of the error: ", error.what());
    check_cuda(cudaDeviceSynchronize(), "the context lives");
  });
}

}  // namespace switchyard::test
