// Low-latency mode: sums, bit for bit; outputs where the library wants them and elsewhere; codings; several
// combines of a dispatch.
#include <chrono>
#include <thread>

#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

using Param = std::tuple<SlotLayout, DType, bool>;

class LowLatencyCombine : public LowLatencyTest, public testing::WithParamInterface<Param> {
 protected:
  [[nodiscard]] static SlotCase base() {
    SlotCase c{.ranks = 4, .tokens = 11, .hidden = 133, .experts = 13, .top_k = 6};
    std::tie(c.layout, c.combine_dtype, c.zero_copy) = GetParam();
    return c;
  }
};

TEST_P(LowLatencyCombine, SumsInTheOrderPromised) {
  for (Routing const routing : {Routing::uniform, Routing::sparse, Routing::repeated, Routing::one_expert}) {
    SlotCase c = base();
    c.routing = routing;
    if (!run_slot_case(c)) return;
  }
}

TEST_P(LowLatencyCombine, WithoutWeights) {
  SlotCase c = base();
  c.weights = false;
  run_slot_case(c);
}

TEST_P(LowLatencyCombine, IntoStridedRows) {
  SlotCase c = base();
  c.extra_stride = 3;
  run_slot_case(c);
  c.hidden = 64;
  c.extra_stride = 64;
  run_slot_case(c);
}

TEST_P(LowLatencyCombine, LargeRowsManyWorkers) {
  SlotCase c = base();
  c.hidden = 3000;
  c.workers = 3;
  run_slot_case(c);
}

TEST_P(LowLatencyCombine, Coded) {
  if (std::get<2>(GetParam())) return;  // refused: LowLatencyBadCombine.CodedInPlace
  for (std::int64_t const hidden : {128, 133, 1024}) {
    SlotCase c = base();
    c.hidden = hidden;
    c.coding = CombineCoding::logfmt10;
    if (!run_slot_case(c)) return;
  }
}

// Rows of another combine of the same dispatch, which lie where those of the one before were.
Tensor other_outputs(SlotProblem& p, SlotRank& rank, LowLatencyReceived const& got) {
  p.the.seed = mix(p.the.seed, 5);  // what experts make, not the routing
  std::vector<std::byte> const rows = outputs_of(SlotChecker(p, rank.rank()), p, got);
  return rank.memory.place({rows.data(), p.the.combine_dtype, {got.x.size(0), got.x.size(1), p.the.hidden}});
}

// Each combine sends other rows. A rank that is slow to read must find those of the combine that it makes.
TEST_P(LowLatencyCombine, SeveralTimes) {
  for (CombineCoding const coding : {CombineCoding::none, CombineCoding::logfmt10}) {
    SlotCase c = base();
    c.coding = coding;
    c.zero_copy = c.zero_copy && coding == CombineCoding::none;
    SlotProblem const p = make_slot_problem(c);
    bool const ok = run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
      for (int step = 0; step < 3; ++step) {
        SlotTrip trip(p, rank, buffer);
        trip.dispatch();
        LowLatencyCombineArgs args = trip.prepare_combine();
        buffer.combine(args);
        trip.check_combined();
        buffer.synchronize();
        LowLatencyReceived host = trip.received();
        host.ranges = rank.memory.fetch(host.ranges);
        host.counts = rank.memory.fetch(host.counts);
        SlotProblem next = p;
        for (int again = 0; again < 4; ++again) {
          Tensor const rows = other_outputs(next, rank, host);
          args.x = rows;
          ReceiveHook receive;
          buffer.send_combine(args, receive);
          if (again % c.ranks == rank.rank()) std::this_thread::sleep_for(std::chrono::milliseconds{20});
          receive(rank.memory.stream());
          buffer.synchronize();
          SlotChecker(next, rank.rank()).check_combined(rank.memory.fetch({args.out, nullptr}));
        }
        args = {};
        host = {};
        trip.release();
      }
      slot_round_trip(p, rank, buffer);
    });
    if (!ok) return;
  }
}

// Each rank sends as many rows to an expert as it may have tokens, by tokens that have it in several slots.
TEST_P(LowLatencyCombine, RowsForRepeatedIds) {
  SlotCase c = base();
  c.routing = Routing::repeated;
  c.counts = Tokens::equal;
  c.experts = 2;  // all slots of all tokens name one of these, as far as there is room for them
  run_slot_case(c);
}

std::string name(testing::TestParamInfo<Param> const& info) {
  auto const [layout, dtype, zero_copy] = info.param;
  return text(name_of(layout), "_", name_of(dtype), zero_copy ? "_in_place" : "_from_elsewhere");
}

INSTANTIATE_TEST_SUITE_P(All, LowLatencyCombine,
                         testing::Combine(testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                                          testing::Values(DType::bf16, DType::f16), testing::Bool()),
                         name);

}  // namespace
}  // namespace switchyard::test
