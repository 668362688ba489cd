// The CUDA engine under stress: kernels that are held up at any of their signals, and calls that change from one to
// the next (support/stress_plan.hpp). Every byte is checked.
#include <atomic>
#include <map>

#include "gpu/throughput/gpu_flow.hpp"
#include "support/delays.hpp"
#include "support/refusal.hpp"
#include "support/stress_plan.hpp"

namespace switchyard::test {
namespace {

class GpuStress : public GpuTest {};

// Rank by rank the same calls, each rank at its own pace.
class StressedRank {
 public:
  StressedRank(Buffer& buffer, DeviceRank& device)
      : buffer_(buffer), device_(device), rank_(buffer.communicator().rank()) {}

  void make(PlannedCall const& call) {
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
    if (!again) handles_[&p] = handle;
  }

 private:
  void refuse(RankInputs const& inputs, int refuser) {
    DispatchArgs args = device_.upload(inputs.args());
    args.num_worst_tokens = 0;  // with it no host waits, and peers learn of a refusal only in a later call
    if (rank_ == refuser) args.x.shape[1] += 1;
    expect_refusal("stress", refuser, {"x"}, [&] { (void)buffer_.dispatch(args); });
  }

  Buffer& buffer_;
  DeviceRank& device_;
  int rank_;
  std::map<Problem const*, Handle> handles_;
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
    StressedRank rank(buffer, device);
    for (PlannedCall const& call : plan.calls()) {
      rank.make(call);
      // Relaxed: a number, which is read when the ranks have been joined.
      if (communicator.rank() == 0) calls.fetch_add(call.calls(), std::memory_order_relaxed);
    }
    communicator.barrier();
  });
}

TEST_F(GpuStress, EveryByteOfManyKindsOfCalls) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Delays const delays(seed | 1U, 60);
  Random random(mix(seed, 6));
  std::atomic<int> calls{0};
  for (int i = 0; i < by_scale(3, 20); ++i) {
    if (!stress_one_buffer(random, calls)) return;
  }
  RecordProperty("calls", calls.load(std::memory_order_relaxed));
}

}  // namespace
}  // namespace switchyard::test
