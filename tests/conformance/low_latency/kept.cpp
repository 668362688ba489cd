// Low-latency mode: results that are kept for longer than the buffer has frames. They stay as they were, and what
// comes later is right; on ranks that keep none, too.
#include <deque>

#include "support/low_latency_kept.hpp"
#include "support/low_latency_refusal.hpp"

namespace switchyard::test {
namespace {

class LowLatencyKept : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  void SetUp() override {
    LowLatencyTest::SetUp();
    if (!IsSkipped() && !slots_grow()) GTEST_SKIP() << "memory of this kind does not grow";
  }
  [[nodiscard]] static SlotCase base() {
    return {.ranks = 3, .tokens = 8, .hidden = 50, .experts = 7, .layout = GetParam()};
  }
};

std::vector<SlotProblem> random_problems(SlotCase c, int count, Random& random) {
  std::vector<SlotProblem> problems;
  for (int i = 0; i < count; ++i) {
    c.seed = random.bits();
    c.routing = random.one_of({Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                               Routing::repeated, Routing::none});
    c.counts = random.one_of({Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none});
    c.cast = random.one_of({SendCast::none, SendCast::fp8, SendCast::fp8_ue8m0});
    c.zero_copy = random.chance(50);
    problems.push_back(make_slot_problem(c));
  }
  return problems;
}

constexpr int kept_for = 12;  // further dispatches

// A rank that keeps every result with a chance of so many percent.
class Keeper {
 public:
  Keeper(SlotRank& rank, LowLatencyBuffer& buffer, int percent)
      : rank_(rank), buffer_(buffer), percent_(percent), own_(mix(rank.c.seed, index(rank.rank()), 55)) {}

  void call(SlotProblem const& p, Peers const& peers = {}) {
    auto trip = std::make_unique<KeptTrip>(p, rank_, buffer_, own_.chance(50), peers);
    check_all();
    if (own_.chance(percent_)) {
      kept_.push_back({calls_ + kept_for, std::move(trip)});
    } else if (own_.chance(50)) {
      trip->release();  // otherwise it goes unspoilt
    }
    ++calls_;
    if (!kept_.empty() && kept_.front().until < calls_) release(0);
  }
  void check_all() const {
    for (Kept const& one : kept_) one.trip->check_unchanged();
  }
  // Releases any of what is kept.
  void release_some() {
    while (!kept_.empty() && own_.chance(70)) release(index(own_.below(static_cast<std::int64_t>(kept_.size()))));
  }

 private:
  struct Kept {
    int until;
    std::unique_ptr<KeptTrip> trip;
  };
  void release(std::size_t which) {
    kept_[which].trip->check_unchanged();
    kept_[which].trip->release();
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  SlotRank& rank_;
  LowLatencyBuffer& buffer_;
  int percent_;
  Random own_;
  std::deque<Kept> kept_;
  int calls_ = 0;
};

// How much each rank keeps: one alone, all but one, all, and each of them some.
TEST_P(LowLatencyKept, StaysAsItWas) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Random random(mix(seed, 12));
  for (std::vector<int> const& percents :
       {std::vector{100, 0, 0}, std::vector{0, 100, 100}, std::vector{100, 100, 100}, std::vector{20, 50, 80}}) {
    for (int const results : {1, 2, 4}) {
      SlotCase c = base();
      c.seed = random.bits();
      c.max_results = results;
      auto const problems = random_problems(c, by_scale(16, 40), random);
      ASSERT_TRUE(run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
        Keeper keeper(rank, buffer, percents[index(rank.rank())]);
        for (std::size_t i = 0; i < problems.size(); ++i) {
          keeper.call(problems[i]);
          if (i % 9 == 8) keeper.release_some();
        }
      }));
    }
  }
}

// Nothing is published to a masked rank. It learns where rows go when it is not masked any more.
TEST_P(LowLatencyKept, WithMasks) {
  constexpr int outcast = 2;
  Random random(mix(fresh_seed(), 13));
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  auto const problems = random_problems(base(), 4, random);
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    bool const out = rank.rank() == outcast;
    Peers some(3, out ? Presence::gone : Presence::here);
    some[outcast] = out ? Presence::here : Presence::gone;
    Keeper keeper(rank, buffer, 60);
    for (int i = 0; i < 3; ++i) {
      for (SlotProblem const& p : problems) keeper.call(p);
      rank.communicator.barrier();
      if (!out) buffer.mask(outcast);
      rank.communicator.barrier();
      for (SlotProblem const& p : problems) keeper.call(p, some);
      rank.communicator.barrier();
      std::vector<bool> const masked = buffer.masked();
      rank.communicator.barrier();
      for (int peer = 0; peer < 3; ++peer) {
        if (masked[index(peer)]) buffer.mask(peer, false);
      }
      buffer.synchronize();
      rank.communicator.barrier();
    }
  });
}

// Results from before are void, and frames stay where they are.
TEST_P(LowLatencyKept, WithAReset) {
  Random random(mix(fresh_seed(), 14));
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  auto const problems = random_problems(base(), 7, random);
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 3; ++i) {
      Keeper before(rank, buffer, 70);
      for (SlotProblem const& p : problems) before.call(p);
      auto old = std::make_unique<SlotTrip>(problems[0], rank, buffer);
      old->dispatch();
      LowLatencyCombineArgs args = old->prepare_combine();
      buffer.synchronize();
      buffer.reset();
      expect_slot_refusal("a handle from before", {"handle", "reset"}, [&] { buffer.combine(args); });
      Keeper after(rank, buffer, 70);
      for (SlotProblem const& p : problems) after.call(p);
      args = {};
      old.reset();  // gives back nothing
      for (SlotProblem const& p : problems) after.call(p);
      rank.communicator.barrier();
    }
  });
}

// The frame has another dispatch by now: its words are of that one.
TEST_P(LowLatencyKept, CannotBeCombinedLater) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip old(p, rank, buffer);
    old.dispatch();
    LowLatencyCombineArgs args = old.prepare_combine();
    for (int i = 0; i < 5; ++i) {
      bool const latest = i < base().max_results;
      SlotTrip next(p, rank, buffer);
      if (!latest) {
        ReceiveHook receive;
        expect_slot_refusal("a combine of an old dispatch", {"handle", "latest 2 dispatches", "dispatches ago"},
                            [&] { buffer.combine(args); });
        expect_slot_refusal("half a combine of it", {"handle", "latest 2 dispatches"},
                            [&] { buffer.send_combine(args, receive); });
      }
      next.dispatch();
      next.combine();
      old.check_received();
    }
    args = {};
    old.release();
    slot_round_trip(p, rank, buffer);
  });
}

// Its second half needs the frame.
TEST_P(LowLatencyKept, NotWhileACombineIsUnderWay) {
  SlotCase c = base();
  c.max_results = 1;
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 3; ++i) {
      SlotTrip one(p, rank, buffer);
      one.dispatch();
      one.send_outputs();
      SlotTrip two(p, rank, buffer);
      ReceiveHook receive;
      expect_slot_refusal("a dispatch", {"max_results", "hook"},
                          [&] { (void)buffer.dispatch(two.dispatch_args()); });
      expect_slot_refusal("half a dispatch", {"max_results", "hook"},
                          [&] { (void)buffer.send_dispatch(two.dispatch_args(), receive); });
      one.receive_outputs();
      one.check_combined();
      two.dispatch();
      two.combine();
      one.check_received();
    }
  });
}

// A dispatch that is refused for its ids leaves the held result's routes alone: its combine comes later.
TEST_P(LowLatencyKept, ARefusedDispatchChangesNothing) {
  if (on_gpu()) GTEST_SKIP() << "the CUDA engine does not look at ids beforehand";
  SlotCase c = base();
  c.max_results = 1;
  c.counts = Tokens::equal;
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip held(p, rank, buffer);
    held.dispatch();
    SlotTrip refused(p, rank, buffer);
    LowLatencyDispatchArgs args = refused.dispatch_args();
    std::vector<std::int64_t> ids(index(args.topk_idx.numel()), 0);
    ids.back() = 99;
    args.topk_idx.data = ids.data();
    args.topk_idx.dtype = DType::i64;
    expect_slot_refusal("a dispatch", {"topk_idx", "99"}, [&] { (void)buffer.dispatch(args); });
    held.combine();
  });
}

// Any one of what a dispatch gives keeps its rows.
TEST_P(LowLatencyKept, ByATensorOrAHandle) {
  SlotCase c = base();
  c.max_results = 1;
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int what = 0; what < 4; ++what) {
      SlotTrip trip(p, rank, buffer);
      trip.dispatch();
      void const* const rows = trip.received().x.data<void>();
      Tensor kept;
      LowLatencyHandle handle;
      if (what == 0) kept = trip.received().x;
      if (what == 1) kept = trip.received().source_token;
      if (what == 2) kept = buffer.outputs(trip.received().handle, DType::f16);
      if (what == 3) handle = trip.received().handle;
      trip.release();
      SlotTrip next(p, rank, buffer);
      next.dispatch();
      check(next.received().x.data<void>() != rows, "what is kept was overwritten");
      kept = {};
      handle = {};
      next.combine();
      next.release();
      SlotTrip other(p, rank, buffer);
      other.dispatch();
      other.combine();
    }
  });
}

class LowLatencyMemory : public LowLatencyTest {};

// One rank keeps all that there is memory for. It gets an error then, and goes on when it has released some of it.
TEST_F(LowLatencyMemory, MoreIsKeptThanThereIsMemoryFor) {
  SlotCase const c{.ranks = 2, .tokens = 1, .counts = Tokens::equal, .hidden = 2, .experts = 2, .top_k = 1};
  auto const problems = make_slot_problems(c, 8);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    std::deque<std::unique_ptr<KeptTrip>> kept;
    bool full = false;
    for (std::size_t i = 0; i < 300; ++i) {
      SlotProblem const& p = problems[i % problems.size()];
      auto trip = [&]() -> std::unique_ptr<KeptTrip> {
        try {
          return std::make_unique<KeptTrip>(p, rank, buffer, i % 2 == 0);
        } catch (InvalidArgument const& error) {
          check_names(error, {"max_results", "held", text(kept.size() - index(c.max_results), " older")});
          return nullptr;
        }
      }();
      if (trip == nullptr) {
        full = true;
        // The result that is in the way, or any older one: its memory is free then.
        std::size_t const which = i % (kept.size() - 1);
        kept[which]->check_unchanged();
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(which));
        trip = std::make_unique<KeptTrip>(p, rank, buffer, i % 2 == 0);
      }
      if (rank.rank() == 0) kept.push_back(std::move(trip));
    }
    check(full == (rank.rank() == 0), "rank ", rank.rank(), " ran out of memory: ", full);
    for (auto const& one : kept) one->check_unchanged();
    kept.clear();
    for (SlotProblem const& p : problems) slot_round_trip(p, rank, buffer);
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyKept, testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
