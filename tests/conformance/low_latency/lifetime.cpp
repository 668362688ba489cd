// Low-latency mode: what outlives what.
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "support/casualty.hpp"
#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

class LowLatencyLifetime : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  [[nodiscard]] static SlotCase base() {
    return {.ranks = 3, .tokens = 8, .hidden = 50, .experts = 7, .layout = GetParam()};
  }
};

TEST_P(LowLatencyLifetime, ResultsOutliveTheBuffer) {
  SlotProblem const p = make_slot_problem(base());
  run_slots(base(), [&](SlotRank& rank) {
    std::optional<LowLatencyBuffer> buffer(std::in_place, rank.communicator, rank.options());
    SlotTrip trip(p, rank, *buffer);
    trip.dispatch();
    LowLatencyReceived kept = trip.received();
    rank.communicator.barrier();
    buffer.reset();
    rank.communicator.barrier();
    for (Tensor* const t : {&kept.x, &kept.scales, &kept.counts, &kept.ranges, &kept.source_token, &kept.topk_idx,
                            &kept.topk_weights}) {
      *t = rank.memory.fetch(*t);
    }
    SlotChecker(p, rank.rank()).check_received(kept);
    rank.communicator.barrier();
  });
}

TEST_P(LowLatencyLifetime, CopiesOfABufferAreTheSameBuffer) {
  SlotProblem const p = make_slot_problem(base());
  run_slots(base(), [&](SlotRank& rank) {
    std::optional<LowLatencyBuffer> first(std::in_place, rank.communicator, rank.options());
    LowLatencyBuffer second = *first;
    SlotTrip trip(p, rank, second);
    trip.dispatch();
    first.reset();
    trip.combine();
    rank.communicator.barrier();
  });
}

TEST_P(LowLatencyLifetime, AHookOutlivesTheBuffer) {
  SlotProblem const p = make_slot_problem(base());
  run_slots(base(), [&](SlotRank& rank) {
    std::optional<LowLatencyBuffer> buffer(std::in_place, rank.communicator, rank.options());
    SlotTrip trip(p, rank, *buffer);
    ReceiveHook receive;
    LowLatencyReceived received = buffer->send_dispatch(trip.dispatch_args(), receive);
    buffer->synchronize();
    rank.communicator.barrier();
    buffer.reset();
    receive(rank.memory.stream());
    rank.communicator.barrier();
  });
}

// It is released while the next dispatch, which takes its frame, is under way.
TEST_P(LowLatencyLifetime, AResultIsReplacedByTheNext) {
  SlotCase c = base();
  c.max_results = 1;
  auto const problems = make_slot_problems(c, 3);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    std::unique_ptr<SlotTrip> earlier;
    for (int i = 0; i < by_scale(20, 100); ++i) {
      auto next = std::make_unique<SlotTrip>(problems[index(i) % problems.size()], rank, buffer);
      next->send();
      if (earlier) earlier->release();
      next->receive();
      next->check_received();
      next->combine(true);
      next->check_combined();
      earlier = std::move(next);
    }
  });
}

TEST_P(LowLatencyLifetime, AHookCalledAgainDoesNothing) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 3; ++i) {
      std::vector<std::int32_t> const zeros(index(buffer.num_local_experts()), 0);
      Tensor const counters =
          rank.memory.place({zeros.data(), DType::i32, {static_cast<std::int64_t>(zeros.size())}});
      SlotTrip trip(p, rank, buffer);
      LowLatencyDispatchArgs args = trip.dispatch_args();
      args.received_per_expert = counters;
      ReceiveHook receive;
      LowLatencyReceived const received = buffer.send_dispatch(args, receive);
      ReceiveHook const copy = receive;
      for (int call = 0; call < 3; ++call) receive(rank.memory.stream());
      copy(rank.memory.stream());
      buffer.synchronize();
      Tensor const seen = rank.memory.fetch(counters);
      std::vector<std::int64_t> const rows = SlotChecker(p, rank.rank()).rows_per_expert();
      for (std::size_t e = 0; e < rows.size(); ++e)
        check_equal(seen.data<std::int32_t>()[e], rows[e], "received_per_expert[", e, "]");
    }
    slot_round_trip(p, rank, buffer);
  });
}

// An old hook called when another call is under way must not take that one's place.
TEST_P(LowLatencyLifetime, AnOldHookDoesNothingToALaterCall) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip first(p, rank, buffer);
    ReceiveHook old;
    LowLatencyReceived received = buffer.send_dispatch(first.dispatch_args(), old);
    old(rank.memory.stream());
    received = {};
    SlotTrip second(p, rank, buffer);
    second.send();
    old(rank.memory.stream());
    second.receive();
    second.check_received();
    second.combine();
  });
}

TEST_P(LowLatencyLifetime, AResultIsDroppedBeforeItIsReceived) {
  SlotCase c = base();
  c.max_results = 1;
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 5; ++i) {
      SlotTrip trip(p, rank, buffer);
      ReceiveHook receive;
      (void)buffer.send_dispatch(trip.dispatch_args(), receive);
      receive(rank.memory.stream());
      receive = nullptr;
    }
    slot_round_trip(p, rank, buffer);
  });
}

TEST_P(LowLatencyLifetime, AHookThatHasRunHoldsNothing) {
  SlotCase c = base();
  c.max_results = 1;
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    std::vector<ReceiveHook> kept(4);
    for (ReceiveHook& receive : kept) {
      SlotTrip trip(p, rank, buffer);
      LowLatencyReceived const received = buffer.send_dispatch(trip.dispatch_args(), receive);
      receive(rank.memory.stream());
    }
    slot_round_trip(p, rank, buffer);
  });
}

TEST_P(LowLatencyLifetime, ResultsAreLetGoOfOnAnotherThread) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < by_scale(20, 100); ++i) {
      SlotTrip trip(p, rank, buffer);
      LowLatencyReceived received = buffer.dispatch(trip.dispatch_args());
      buffer.synchronize();
      std::thread([received = std::exchange(received, {})] {}).join();
    }
    slot_round_trip(p, rank, buffer);
  });
}

// The receive half was never called: the next call of the kind either does it or refuses, on every rank alike.
TEST_P(LowLatencyLifetime, AHookIsDropped) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    {
      SlotTrip trip(p, rank, buffer);
      ReceiveHook receive;
      (void)buffer.send_dispatch(trip.dispatch_args(), receive);
    }
    try {
      slot_round_trip(p, rank, buffer);
    } catch (InvalidArgument const&) {
      rank.communicator.barrier();
      buffer.reset();
    }
    slot_round_trip(p, rank, buffer);
  });
}

// Inputs may go as soon as the receive half is done.
TEST_P(LowLatencyLifetime, InputsGoBeforeTheResult) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    LowLatencyReceived received;
    {
      SlotInputs const inputs(p, rank.memory, rank.rank());
      received = buffer.dispatch(inputs.args());
      buffer.synchronize();
    }
    SlotInputs const others(make_slot_problem({.seed = 5}), rank.memory, rank.rank());
    LowLatencyReceived host = received;
    for (Tensor* const t :
         {&host.x, &host.counts, &host.ranges, &host.source_token, &host.topk_idx, &host.topk_weights}) {
      *t = rank.memory.fetch(*t);
    }
    SlotChecker(p, rank.rank()).check_received(host);
  });
}

TEST_P(LowLatencyLifetime, NothingStaysBehind) {
  Traces const traces;
  for (int i = 0; i < 3; ++i) run_slot_case(base());
  if (!on_gpu()) traces.expect_none();
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyLifetime,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
