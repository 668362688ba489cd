// Throughput mode under stress: ranks that are held up at any of their signals, and calls that change from one to
// the next: ways of routing, numbers of tokens, blocks that are offered beforehand, known, or too small, ranks that
// send or get nothing, calls that one rank refuses. Every byte is checked.
#include <atomic>
#include <map>

#include "support/delays.hpp"
#include "support/played_nodes.hpp"
#include "support/random_traffic.hpp"
#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

constexpr int plans_a_buffer = 100;  // a dispatch and a combine each, or a dispatch that is refused

Case random_sizes(Random& random) {
  Case c;
  c.ranks = random.between(2, 5);
  c.nodes = played_nodes(c.ranks);
  c.tokens = random.one_of({1, 3, 20, 90});
  c.hidden = random.between(1, 40);
  c.experts = random.between(1, 12);
  c.top_k = random.between(1, 4);
  c.workers = random.between(1, 2);
  return c;
}

Case random_call(Case c, Random& random) {
  c.seed = random.bits();
  choose_traffic(c, random);
  c.layout = random.chance(30) ? OutputLayout::expanded : OutputLayout::flat;
  c.worst = random.chance(20);
  c.weights = random.chance(70);
  c.cast = random.chance(30);
  return c;
}

enum class Kind : std::uint8_t { dispatch, cached, refused };

struct PlannedCall {
  Problem const* problem;
  Kind kind;
  int refuser;
};

// Rank by rank the same calls, each rank at its own pace.
class StressedRank {
 public:
  explicit StressedRank(Buffer& buffer) : buffer_(buffer), rank_(buffer.communicator().rank()) {}

  // Returns how many calls of the job that were.
  int make(PlannedCall const& call) {
    make_one(call);
    return call.kind == Kind::refused ? 1 : 2;
  }

 private:
  void make_one(PlannedCall const& call) {
    switch (call.kind) {
      case Kind::dispatch: return keep(*call.problem, dispatch(*call.problem));
      case Kind::cached: return dispatch_again(*call.problem);
      case Kind::refused: return refuse(*call.problem, call.refuser);
    }
  }

  Handle dispatch(Problem const& p) {
    RankInputs const inputs(p, rank_);
    Dispatched const received = buffer_.dispatch(inputs.args());
    DispatchChecker(p, rank_).check_dispatch(received);
    combine(p, received.handle);
    return received.handle;
  }

  void dispatch_again(Problem const& p) {
    auto const found = handles_.find(&p);
    if (found == handles_.end()) return keep(p, dispatch(p));
    RankInputs const inputs(p, rank_);
    Dispatched const received = buffer_.dispatch(inputs.cached_args(found->second));
    DispatchChecker(p, rank_, Travel::cached).check_dispatch(received);
    combine(p, received.handle);
  }

  void combine(Problem const& p, Handle const& handle) {
    CombineInputs const outputs(p, rank_, {});
    std::vector<std::byte> x(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype));
    outputs.write_rows(x.data());
    ConstTensorView const view{x.data(), p.the.combine_dtype, {outputs.rows(), p.the.hidden}};
    outputs.check_result(buffer_.combine(outputs.args(view, handle)));
  }

  void refuse(Problem const& p, int refuser) {
    RankInputs const inputs(p, rank_);
    DispatchArgs args = inputs.args();
    if (rank_ == refuser) args.x.shape[1] += 1;
    expect_refusal("stress", refuser, {"x"}, [&] { (void)buffer_.dispatch(args); });
  }

  void keep(Problem const& p, Handle const& handle) { handles_[&p] = handle; }

  Buffer& buffer_;
  int rank_;
  std::map<Problem const*, Handle> handles_;
};

// Adds the calls that it makes to `calls`.
bool stress_one_buffer(Random& random, std::atomic<int>& calls) {
  Case const c = random_sizes(random);
  std::vector<Problem> pool;
  for (int i = 0; i < 12; ++i) pool.push_back(make_problem(random_call(c, random)));
  std::vector<PlannedCall> plan;
  for (int i = 0; i < plans_a_buffer; ++i) {
    plan.push_back({&pool[index(random.below(12))],
                    random.one_of({Kind::dispatch, Kind::dispatch, Kind::dispatch, Kind::cached, Kind::refused}),
                    random.between(0, c.ranks - 1)});
  }
  return run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    BufferOptions options = options_for(pool[0]);
    options.heap_bytes = std::size_t{64} << 20U;
    Buffer buffer(communicator, options);
    StressedRank rank(buffer);
    for (PlannedCall const& call : plan) {
      int const made = rank.make(call);
      // Relaxed: a number, which is read when the ranks have been joined.
      if (communicator.rank() == 0) calls.fetch_add(made, std::memory_order_relaxed);
    }
  });
}

TEST(Stress, EveryByteOfManyKindsOfCalls) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Delays const delays(seed | 1U, 60);
  Random random(mix(seed, 6));
  std::atomic<int> calls{0};
  for (int i = 0; i < by_scale(3, 20); ++i) {
    if (!stress_one_buffer(random, calls)) return;
  }
  // For tools/stress_faulty, which adds them up.
  RecordProperty("calls", calls.load(std::memory_order_relaxed));
}

}  // namespace
}  // namespace switchyard::test
