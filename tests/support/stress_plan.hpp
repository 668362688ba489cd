// Calls of the throughput mode by chance, for stress: ways of routing, numbers of tokens, blocks that are offered
// beforehand, known, or too small, ranks that send or get nothing, calls that one rank refuses.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "support/delays.hpp"
#include "support/played_nodes.hpp"
#include "support/problem.hpp"
#include "support/random.hpp"
#include "support/random_traffic.hpp"

namespace switchyard::test {

enum class PlannedKind : std::uint8_t { dispatch, cached, refused };

struct PlannedCall {
  Problem const* problem;
  PlannedKind kind;
  int refuser;

  // Calls of the job: a dispatch and its combine, or a dispatch that is refused.
  [[nodiscard]] int calls() const { return kind == PlannedKind::refused ? 1 : 2; }
};

// What all ranks call, in this order, through one buffer. It stays where it is, since calls point into it.
class StressPlan {
 public:
  explicit StressPlan(Random& random) : sizes_(random_sizes(random)) {
    constexpr int problems = 12;
    constexpr int calls = 100;
    pool_.reserve(problems);
    for (int i = 0; i < problems; ++i) pool_.push_back(make_problem(random_call(sizes_, random)));
    for (int i = 0; i < calls; ++i) {
      calls_.push_back({&pool_[index(random.below(problems))],
                        random.one_of({PlannedKind::dispatch, PlannedKind::dispatch, PlannedKind::dispatch,
                                       PlannedKind::cached, PlannedKind::refused}),
                        random.between(0, sizes_.ranks - 1)});
    }
  }
  StressPlan(StressPlan const&) = delete;
  StressPlan& operator=(StressPlan const&) = delete;

  // What all problems have in common: ranks, nodes, and the sizes of the buffer.
  [[nodiscard]] Case const& sizes() const { return sizes_; }
  // Any of them, to make the buffer for.
  [[nodiscard]] Problem const& one_problem() const { return pool_.front(); }
  [[nodiscard]] std::vector<PlannedCall> const& calls() const { return calls_; }

 private:
  static Case random_sizes(Random& random) {
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

  static Case random_call(Case c, Random& random) {
    c.seed = random.bits();
    choose_traffic(c, random);
    c.layout = random.chance(30) ? OutputLayout::expanded : OutputLayout::flat;
    c.worst = random.chance(20);
    c.weights = random.chance(70);
    c.cast = random.chance(30);
    return c;
  }

  Case sizes_;
  std::vector<Problem> pool_;
  std::vector<PlannedCall> calls_;
};

// Rank by rank the same calls, each rank at its own pace.
class StressedRank {
 public:
  explicit StressedRank(Buffer& buffer) : buffer_(buffer), rank_(buffer.communicator().rank()) {}
  virtual ~StressedRank() = default;
  StressedRank(StressedRank const&) = delete;
  StressedRank& operator=(StressedRank const&) = delete;

  // Rank 0 adds the calls of the job to `calls`.
  void make_all(StressPlan const& plan, std::atomic<int>& calls) {
    for (PlannedCall const& call : plan.calls()) {
      make(call);
      // Relaxed: a number, which is read when the ranks have been joined.
      if (rank_ == 0) calls.fetch_add(call.calls(), std::memory_order_relaxed);
    }
  }

 protected:
  virtual void make(PlannedCall const& call) = 0;
  void keep(Problem const& p, Handle const& handle) { handles_[&p] = handle; }

  Buffer& buffer_;
  int rank_;
  std::map<Problem const*, Handle> handles_;
};

// Stresses several buffers while signals are held up, until one fails.
inline void stress_buffers(bool (*stress_one)(Random& random, std::atomic<int>& calls)) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Delays const delays(seed | 1U, 60);
  Random random(mix(seed, 6));
  std::atomic<int> calls{0};
  for (int i = 0; i < by_scale(3, 20); ++i) {
    if (!stress_one(random, calls)) return;
  }
  // For tools/stress_faulty, which adds them up.
  testing::Test::RecordProperty("calls", calls.load(std::memory_order_relaxed));
}

}  // namespace switchyard::test
