// The CUDA engine under stress: kernels that are held up at any of their signals, and calls that change from one to
// the next (support/stress_plan.hpp). Every byte is checked.
#include "gpu/throughput/gpu_flow.hpp"
#include "support/refusal.hpp"
#include "support/stress_plan.hpp"

namespace switchyard::test {
namespace {

class GpuStress : public GpuTest {};

class GpuRank : public StressedRank {
 public:
  GpuRank(Buffer& buffer, DeviceRank& device) : StressedRank(buffer), device_(device) {}

 private:
  void make(PlannedCall const& call) override {
    device_.clear();
    Problem const& p = *call.problem;
    RankInputs const inputs(p, rank_);
    if (call.kind == PlannedKind::refused) return refuse(inputs, call.refuser);
    auto const known = handles_.find(&p);
    bool const again = call.kind == PlannedKind::cached && known != handles_.end();
    Handle const handle = again
                              ? gpu_dispatch(p, buffer_, device_, inputs.cached_args(known->second), Travel::cached)
                              : gpu_dispatch(p, buffer_, device_, inputs.args());
    gpu_combine(p, buffer_, device_, handle, {.outputs = OutputsIn::mixed});
    if (!again) keep(p, handle);
  }

  void refuse(RankInputs const& inputs, int refuser) {
    DispatchArgs args = device_.upload(inputs.args());
    args.num_worst_tokens = 0;  // with it no host waits, and peers learn of a refusal only in a later call
    if (rank_ == refuser) args.x.shape[1] += 1;
    expect_refusal("stress", refuser, {"x"}, [&] { (void)buffer_.dispatch(args); });
  }

  DeviceRank& device_;
};

// Adds the calls that it makes to `calls`.
bool stress_one_buffer(Random& random, std::atomic<int>& calls) {
  StressPlan const plan(random);
  Case const& c = plan.sizes();
  return run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = gpu_options_for(plan.one_problem());
    options.heap_bytes = std::size_t{64} << 20U;
    Buffer buffer(communicator, options);
    GpuRank(buffer, device).make_all(plan, calls);
    communicator.barrier();
  });
}

TEST_F(GpuStress, EveryByteOfManyKindsOfCalls) {
  stress_buffers(stress_one_buffer);
}

}  // namespace
}  // namespace switchyard::test
