// Low-latency mode under stress: ranks that are held up at any of their signals, orders of halves, routings and
// numbers of tokens that change from call to call, results that are held for as long as may be and longer. Every
// byte is checked.
#include "support/delays.hpp"
#include "support/low_latency_kept.hpp"
#include "support/low_latency_plan.hpp"
#include "support/low_latency_trip.hpp"
#include "support/random_traffic.hpp"

namespace switchyard::test {
namespace {

class LowLatencyStress : public LowLatencyTest {};

constexpr int trips_a_buffer = 250;  // two calls each
constexpr int most_kept = 9;         // results whose frames have gone on without them

SlotCase random_sizes(Random& random) {
  SlotCase c;
  c.ranks = random.between(2, 4);
  c.tokens = random.between(1, 8);
  c.hidden = random.between(1, 70);
  c.experts = random.between(1, 12);
  c.top_k = random.between(1, 4);
  c.max_results = random.between(1, 4);
  c.workers = random.between(1, 2);
  return c;
}

SlotCase random_call(SlotCase c, Random& random) {
  c.seed = random.bits();
  choose_traffic(c, random);
  c.cast = random.one_of({SendCast::none, SendCast::none, SendCast::fp8, SendCast::fp8_pow2, SendCast::fp8_ue8m0});
  c.layout = random.one_of({SlotLayout::expert_major, SlotLayout::rank_major});
  c.combine_dtype = random.one_of({DType::bf16, DType::f16});
  c.zero_copy = random.chance(50);
  c.weights = random.chance(70);
  return c;
}

// What one rank does: the plan is that of all, what it does in between is its own affair.
class StressedRank {
 public:
  StressedRank(std::vector<SlotProblem const*> const& problems, SlotRank& rank, LowLatencyBuffer& buffer,
               bool keeps)
      : problems_(problems),
        rank_(rank),
        buffer_(buffer),
        keeps_(keeps),
        trips_(problems.size()),
        own_(mix(rank.c.seed, static_cast<std::uint64_t>(rank.rank()), 31)) {}

  void run(std::vector<PlannedHalf> const& plan) {
    for (PlannedHalf const& planned : plan) {
      step(planned);
      wander();
    }
  }

 private:
  void step(PlannedHalf planned) {
    std::unique_ptr<SlotTrip>& trip = trips_[index(planned.trip)];
    switch (planned.half) {
      case Half::send:
        if (planned.trip >= rank_.c.max_results) make_room(planned.trip - rank_.c.max_results);
        trip = std::make_unique<SlotTrip>(*problems_[index(planned.trip)], rank_, buffer_);
        trip->send();
        break;
      case Half::receive:
        trip->receive();
        trip->check_received();
        break;
      case Half::send_outputs: trip->send_outputs(); break;
      case Half::receive_outputs:
        trip->receive_outputs();
        trip->check_combined();
        done_.push_back(planned.trip);
        break;
    }
  }

  // The trip's frame is to be used again, and the result may stay.
  void make_room(int trip) {
    if (!keeps_ || own_.chance(40)) return release(trip);
    if (!trips_[index(trip)]) return;
    if (kept_++ % most_kept == 0) {
      for (int earlier = 0; earlier < trip; ++earlier) release(earlier);
    }
  }

  void release(int trip) {
    if (trips_[index(trip)]) trips_[index(trip)]->release();
    trips_[index(trip)].reset();
    std::erase(done_, trip);
  }

  void wander() {
    if (own_.chance(10)) std::this_thread::sleep_for(std::chrono::microseconds{own_.below(300)});
    if (done_.empty()) return;
    int const any = done_[index(own_.below(static_cast<std::int64_t>(done_.size())))];
    if (own_.chance(30)) trips_[index(any)]->check_received();
    if (own_.chance(30)) release(any);
  }

  std::vector<SlotProblem const*> const& problems_;
  SlotRank& rank_;
  LowLatencyBuffer& buffer_;
  bool keeps_;
  std::vector<std::unique_ptr<SlotTrip>> trips_;
  std::vector<int> done_;  // and not released
  int kept_ = 0;
  Random own_;
};

bool stress_one_buffer(Random& random, bool keeps) {
  SlotCase c = random_sizes(random);
  c.seed = random.bits();
  std::vector<SlotProblem> pool;
  for (int i = 0; i < 16; ++i) pool.push_back(make_slot_problem(random_call(c, random)));
  std::vector<SlotProblem const*> problems;
  for (int i = 0; i < trips_a_buffer; ++i) problems.push_back(&pool[index(random.below(16))]);
  std::vector<PlannedHalf> const plan = plan_halves(trips_a_buffer, c.max_results, random);
  return run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    StressedRank(problems, rank, buffer, keeps).run(plan);
    buffer.synchronize();
  });
}

TEST_F(LowLatencyStress, EveryByteOfTenThousandCalls) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Delays const delays(seed | 1U, 60);
  Random random(mix(seed, 5));
  bool const grow = slots_grow();
  int calls = 0;
  for (; calls < by_scale(1000, 10'000); calls += 2 * trips_a_buffer) {
    if (!stress_one_buffer(random, grow && random.chance(60))) return;
  }
  RecordProperty("calls", calls);  // for tools/stress_faulty, which adds them up
}

// Every trip takes its four halves in order, and frames are free when they are taken.
TEST(LowLatencyPlan, PlansAreWhatTheInterfaceAllows) {
  for (int frames = 1; frames <= 3; ++frames) {
    Random random(9);
    std::vector<int> halves(40, 0);
    auto const plan = plan_halves(40, frames, random);
    ASSERT_EQ(plan.size(), 160U);
    for (PlannedHalf const planned : plan) {
      EXPECT_EQ(static_cast<int>(planned.half), halves[index(planned.trip)]++);
      if (planned.half == Half::send && planned.trip >= frames) {
        EXPECT_EQ(halves[index(planned.trip - frames)], 4);
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::test
