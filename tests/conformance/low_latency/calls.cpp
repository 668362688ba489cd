// Low-latency mode: many calls of one buffer: halves in turns, results that are held, routings that change.
#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

class LowLatencyCalls : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  [[nodiscard]] static SlotCase base() {
    return {.ranks = 3, .tokens = 8, .hidden = 72, .experts = 7, .layout = GetParam()};
  }
};

// Two micro-batches: one is on its way while the experts work on the other.
TEST_P(LowLatencyCalls, HalvesOfTwoBatchesInTurns) {
  auto const problems = make_slot_problems(base(), 2);
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < by_scale(3, 20); ++i) {
      SlotTrip one(problems[0], rank, buffer);
      SlotTrip two(problems[1], rank, buffer);
      one.send();
      one.receive();
      two.send();
      one.check_received();
      one.send_outputs();
      two.receive();
      two.check_received();
      one.receive_outputs();
      two.send_outputs();
      one.check_combined();
      two.receive_outputs();
      two.check_combined();
      two.check_received();
      one.check_received();
      one.release();
      two.release();
    }
  });
}

// With and without codes, for which outputs lie elsewhere on their way.
TEST_P(LowLatencyCalls, TwoCombinesAreSentBeforeEitherIsReceived) {
  for (CombineCoding const coding : {CombineCoding::none, CombineCoding::logfmt10}) {
    SlotCase c = base();
    c.coding = coding;
    c.zero_copy = false;
    auto const problems = make_slot_problems(c, 2);
    run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
      for (int i = 0; i < by_scale(3, 20); ++i) {
        SlotTrip one(problems[0], rank, buffer);
        SlotTrip two(problems[1], rank, buffer);
        for (SlotTrip* const trip : {&one, &two}) trip->dispatch();
        for (SlotTrip* const trip : {&one, &two}) trip->send_outputs();
        for (SlotTrip* const trip : {&one, &two}) trip->receive_outputs();
        for (SlotTrip* const trip : {&one, &two}) trip->check_combined();
        one.release();
        two.release();
      }
    });
  }
}

// A combine may start between the halves of a dispatch, and the other way round.
TEST_P(LowLatencyCalls, AHalfOfTheOtherKindBetweenHalves) {
  auto const problems = make_slot_problems(base(), 2);
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < by_scale(3, 20); ++i) {
      SlotTrip one(problems[0], rank, buffer);
      SlotTrip two(problems[1], rank, buffer);
      one.dispatch();
      two.send();
      one.combine();
      two.receive();
      two.check_received();
      one.release();
      SlotTrip three(problems[0], rank, buffer);
      two.send_outputs();
      three.dispatch(true);
      two.receive_outputs();
      two.check_combined();
      three.combine();
      three.release();
      two.release();
    }
  });
}

// Peers run ahead as far as they can: they meet no frame to write to, and what is held stays as it is.
TEST_P(LowLatencyCalls, AHeldResultIsIntactWhilePeersRunAhead) {
  constexpr int results = 3;
  SlotCase c = base();
  c.max_results = results;
  auto const problems = make_slot_problems(c, results);
  auto const ahead = make_slot_problems({.ranks = c.ranks,
                                         .tokens = c.tokens,
                                         .hidden = c.hidden,
                                         .experts = c.experts,
                                         .layout = c.layout,
                                         .seed = 99},
                                        results);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    std::vector<std::unique_ptr<SlotTrip>> held;
    for (SlotProblem const& p : problems) {
      held.push_back(std::make_unique<SlotTrip>(p, rank, buffer));
      held.back()->dispatch();
      held.back()->combine();
    }
    bool const holds = rank.rank() == 0;
    for (int i = 0; i < results; ++i) {
      if (holds) {
        std::this_thread::sleep_for(std::chrono::milliseconds{20});  // time for peers to do what they must not
        for (auto const& trip : held) {
          if (trip) trip->check_received();
        }
      }
      held[index(i)]->release();
      held[index(i)].reset();
      SlotTrip next(ahead[index(i)], rank, buffer);
      next.dispatch();
      next.combine();
      next.release();
    }
  });
}

TEST_P(LowLatencyCalls, TokensAndRoutingsThatChange) {
  std::vector<SlotProblem> problems;
  SlotCase c = base();
  Random random(mix(fresh_seed(), 3));
  for (int i = 0; i < by_scale(10, 60); ++i) {
    c.seed = random.bits();
    c.routing = random.one_of({Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                               Routing::none, Routing::repeated});
    c.counts =
        random.one_of({Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none});
    c.cast = random.one_of({SendCast::none, SendCast::fp8, SendCast::fp8_pow2, SendCast::fp8_ue8m0});
    c.layout = random.one_of({SlotLayout::expert_major, SlotLayout::rank_major});
    c.zero_copy = random.chance(50);
    problems.push_back(make_slot_problem(c));
  }
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (SlotProblem const& p : problems) slot_round_trip(p, rank, buffer);
  });
}

// Two buffers of one job know nothing of one another.
TEST_P(LowLatencyCalls, TwoBuffers) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    LowLatencyBuffer other(rank.communicator, rank.options());
    SlotTrip one(p, rank, buffer);
    SlotTrip two(p, rank, other);
    one.send();
    two.send();
    two.receive();
    one.receive();
    one.check_received();
    two.check_received();
    two.combine();
    one.combine();
    rank.communicator.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyCalls,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
