// Low-latency mode: what calls count for the caller.
#include <atomic>

#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

class LowLatencyCounters : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  [[nodiscard]] static SlotCase base() {
    return {
        .ranks = 3, .tokens = 8, .hidden = 64, .experts = 7, .routing = Routing::repeated, .layout = GetParam()};
  }
};

template <typename T>
Tensor place_numbers(RankMemory& memory, DType dtype, std::vector<T> const& numbers) {
  return memory.place({numbers.data(), dtype, {static_cast<std::int64_t>(numbers.size())}});
}

// Added to what is there, call by call. In rank_major a row may have several of the rank's experts: each counts it.
TEST_P(LowLatencyCounters, ReceivedPerExpert) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    std::vector<std::int64_t> const rows = SlotChecker(p, rank.rank()).rows_per_expert();
    std::vector<std::int32_t> numbers(rows.size(), 1000);
    Tensor const counters = place_numbers(rank.memory, DType::i32, numbers);
    for (int call = 1; call <= 3; ++call) {
      SlotTrip trip(p, rank, buffer);
      LowLatencyDispatchArgs args = trip.dispatch_args();
      args.received_per_expert = counters;
      LowLatencyReceived const received = buffer.dispatch(args);
      buffer.synchronize();
      Tensor const seen = rank.memory.fetch(counters);
      for (std::size_t i = 0; i < rows.size(); ++i)
        check_equal(seen.data<std::int32_t>()[i], 1000 + call * rows[i], "received_per_expert[", i, "], call ",
                    call);
    }
  });
}

// The counts of the result, in memory that lives on when the slots have other rows.
TEST_P(LowLatencyCounters, CountsToKeep) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (bool const whole : {true, false}) {
      SlotTrip trip(p, rank, buffer);
      auto const groups = index(base().by_expert() ? buffer.num_local_experts() : p.the.ranks);
      Tensor const counts = place_numbers(rank.memory, DType::i32, std::vector<std::int32_t>(groups, -1));
      LowLatencyDispatchArgs args = trip.dispatch_args();
      args.counts = counts;
      ReceiveHook receive;
      LowLatencyReceived const got = whole ? buffer.dispatch(args) : buffer.send_dispatch(args, receive);
      if (!whole) receive(rank.memory.stream());
      buffer.synchronize();
      Tensor const expected = rank.memory.fetch(got.counts);
      Tensor const seen = rank.memory.fetch(counts);
      for (std::size_t i = 0; i < groups; ++i)
        check_equal(seen.data<std::int32_t>()[i], expected.data<std::int32_t>()[i], "counts[", i, "]");
    }
  });
}

// A source that is late for certain is waited for, sooner or later: the waiting rank may itself be held up.
TEST_P(LowLatencyCounters, NanosecondsWaitedForEachSource) {
  SlotProblem const p = make_slot_problem(base());
  std::atomic<int> about_to_wait{0};
  std::atomic<bool> waited{false};
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    bool const late = rank.rank() == 1;
    for (int call = 1; call <= 50 && !waited; ++call) {
      Tensor const ns = place_numbers(rank.memory, DType::i64, std::vector<std::int64_t>(index(p.the.ranks), 0));
      SlotTrip trip(p, rank, buffer);
      LowLatencyDispatchArgs args = trip.dispatch_args();
      args.wait_ns_per_source = ns;
      ReceiveHook receive;
      while (late && about_to_wait < call * (p.the.ranks - 1)) std::this_thread::yield();
      if (late) std::this_thread::sleep_for(std::chrono::milliseconds{5});
      LowLatencyReceived const received = buffer.send_dispatch(args, receive);
      ++about_to_wait;
      receive(rank.memory.stream());
      buffer.synchronize();
      Tensor const seen = rank.memory.fetch(ns);
      for (int source = 0; source < p.the.ranks; ++source)
        check(seen.data<std::int64_t>()[source] >= 0, "waited less than nothing for rank ", source);
      rank.communicator.barrier();
      if (!late && seen.data<std::int64_t>()[1] > 0) waited = true;
      rank.communicator.barrier();
    }
    check(waited, "nobody waited for a rank that is late");
  });
}

TEST_P(LowLatencyCounters, NanosecondsOfACombine) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    Tensor const ns = place_numbers(rank.memory, DType::i64, std::vector<std::int64_t>(index(p.the.ranks), 0));
    SlotTrip trip(p, rank, buffer);
    trip.dispatch();
    LowLatencyCombineArgs args = trip.prepare_combine();
    args.wait_ns_per_source = ns;
    buffer.combine(args);
    trip.check_combined();
    Tensor const seen = rank.memory.fetch(ns);
    for (int source = 0; source < p.the.ranks; ++source)
      check(seen.data<std::int64_t>()[source] >= 0, "waited less than nothing for rank ", source);
  });
}

TEST_P(LowLatencyCounters, WhatTheBufferTells) {
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    check_equal(buffer.num_local_experts(), rank.rank() == 0 ? 3 : 2, "num_local_experts of 7 experts on 3 ranks");
    check(buffer.engine() == slot_engine().kind(), "another engine");
    check_equal(buffer.options().max_tokens, base().tokens, "options().max_tokens");
    check_equal(buffer.communicator().rank(), rank.rank(), "communicator().rank");
    check(buffer.bytes() > 0, "no bytes");
    check_equal(buffer.masked().size(), std::size_t{3}, "masked().size");
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyCounters,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
