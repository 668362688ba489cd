// get_layout on the GPU, against the reference.
#include "gpu/throughput/gpu_flow.hpp"
#include "support/layout_check.hpp"

namespace switchyard::test {
namespace {

class GpuLayout : public GpuTest {};

void run_layout(Case const& c) {
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(p));
    RankInputs const inputs(p, communicator.rank());
    ConstTensorView const ids = device.upload(inputs.ids());
    for (int i = 0; i < 2; ++i)
      check_layout(p, communicator.rank(), device.download(buffer.get_layout(ids, device.stream())));
    check_layout(p, communicator.rank(), device.download(buffer.get_layout_async(ids, device.stream()).get()));
    gpu_round_trip(p, buffer, device);  // the kernels share counters
    ConstTensorView const again = device.upload(inputs.ids());
    check_layout(p, communicator.rank(), device.download(buffer.get_layout(again, device.stream())));
    communicator.barrier();
  });
}

TEST_F(GpuLayout, CountsForEveryRouting) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                                Routing::none, Routing::repeated}) {
    run_layout({.ranks = 3, .tokens = 700, .experts = 8, .top_k = 4, .routing = routing});
    run_layout({.ranks = 5, .tokens = 20, .experts = 3, .top_k = 2, .routing = routing, .id_dtype = DType::i32});
  }
}

TEST_F(GpuLayout, NoTokens) {
  run_layout({.ranks = 3, .counts = Tokens::all_none});
}

TEST_F(GpuLayout, MoreExpertsThanSharedMemoryHolds) {
  run_layout({.ranks = 2, .tokens = 300, .experts = 20000, .top_k = 6});
}

// No host waits for a layout that could throw: such an id counts as not used, and nothing is written out of bounds.
TEST_F(GpuLayout, IdsOutOfRangeCountAsUnused) {
  Case const c{.ranks = 2, .tokens = 40, .counts = Tokens::equal, .top_k = 3};
  Problem unused = make_problem(c);
  Problem bad = unused;
  for (RankInput& input : bad.inputs) {
    input.ids[4] = c.experts;
    input.ids[7] = -2;
    input.ids[11] = std::int64_t{1} << 40U;
  }
  for (RankInput& input : unused.inputs) input.ids[4] = input.ids[7] = input.ids[11] = -1;
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    Buffer buffer(communicator, gpu_options_for(unused));
    RankInputs const inputs(bad, communicator.rank());
    ConstTensorView const ids = device.upload(inputs.ids());
    check_layout(unused, communicator.rank(), device.download(buffer.get_layout(ids, device.stream())));
    gpu_round_trip(unused, buffer, device);
    communicator.barrier();
  });
}

}  // namespace
}  // namespace switchyard::test
