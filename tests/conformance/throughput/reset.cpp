// Buffer::reset(): after a rank was late all go on, as if nothing had been.
#include "support/late.hpp"

namespace switchyard::test {
namespace {

constexpr int ranks = 3;

struct OnRank {
  Problem const& p;
  Buffer& buffer;
  int rank;
  Lateness lateness;
};

class Reset : public testing::TestWithParam<Launch> {
 protected:
  template <typename Body>
  static void run(Body const& body, int size = ranks) {
    Case const c{.launch = GetParam(), .ranks = size, .tokens = 20, .hidden = 70, .top_k = 3};
    Problem const problem = make_problem(c);
    Shared<std::atomic<int>> const gave_up;
    run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
      BufferOptions options = options_for(problem, 6);
      options.timeout = late_timeout();
      Buffer buffer(communicator, options);
      body(OnRank{problem, buffer, communicator.rank(), Lateness(*gave_up, communicator)});
    });
  }
};

// A result that a rank holds: intact, and good for a combine.
void check_held(OnRank const& on, Dispatched const& held) {
  DispatchChecker(on.p, on.rank).check_dispatch(held);
  CombineInputs const outputs(on.p, on.rank, {});
  Tensor const x = on.buffer.allocate(on.p.the.combine_dtype, {outputs.rows(), on.p.the.hidden});
  outputs.write_rows(x.data<void>());
  outputs.check_result(on.buffer.combine(outputs.args(x, held.handle)));
}

void check_works(OnRank const& on) {
  check_equal(on.buffer.heap_bytes_used(), std::size_t{0}, "bytes that the failed calls kept");
  for (int i = 0; i < 2; ++i) round_trip(on.p, on.buffer);
}

TEST_P(Reset, AfterADispatch) {
  run([](OnRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int const late : {1, 0, 2, 2}) {
      on.lateness.expect_timeout(late, [&] { (void)on.buffer.dispatch(inputs.args()); });
      on.buffer.reset();
      check_works(on);
    }
  });
}

TEST_P(Reset, AfterACombineThatIsMadeAgain) {
  run([](OnRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int const late : {2, 0}) {
      {
        Dispatched const held = on.buffer.dispatch(inputs.args());
        CombineInputs const outputs(on.p, on.rank, {});
        std::vector<std::byte> x(index(outputs.rows() * on.p.the.hidden) * size_of(on.p.the.combine_dtype));
        outputs.write_rows(x.data());
        ConstTensorView const view{x.data(), on.p.the.combine_dtype, {outputs.rows(), on.p.the.hidden}};
        on.lateness.expect_timeout(late, [&] { (void)on.buffer.combine(outputs.args(view, held.handle)); });
        on.buffer.reset();
        check_held(on, held);
        DispatchArgs cached = inputs.args();
        cached.topk_idx = cached.topk_weights = {};
        cached.handle = held.handle;
        DispatchChecker(on.p, on.rank, Travel::cached).check_dispatch(on.buffer.dispatch(cached));
      }
      check_works(on);
    }
  });
}

// The others have opened the call that the late rank never makes: their flags must not open its next one.
TEST_P(Reset, AfterCallsThatOneRankLeftOut) {
  run([](OnRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int const late : {0, 1, 2}) {
      {
        std::vector<Pending<Dispatched>> pending;
        for (int i = 0; i < 3 && on.rank != late; ++i) pending.push_back(on.buffer.dispatch_async(inputs.args()));
        on.buffer.reset();  // also waits for them
        for (Pending<Dispatched>& each : pending) {
          check(each.event().done(), "a call is under way after the reset");
          auto const error = expect_throw<Timeout>("a call of before the reset", [&] { (void)each.get(); });
          check_equal(error.peer(), late, "peer of the error: ", error.what());
        }
      }
      check_works(on);
    }
  });
}

TEST_P(Reset, WithoutAFailure) {
  run([](OnRank on) {
    on.buffer.reset();
    {
      RankInputs const inputs(on.p, on.rank);
      Dispatched const held = on.buffer.dispatch(inputs.args());
      on.buffer.reset();
      on.buffer.reset();
      check_held(on, held);
      Pending<Dispatched> pending = on.buffer.dispatch_async(inputs.args());
      on.buffer.reset();
      check_held(on, pending.get());
    }
    check_works(on);
  });
}

TEST_P(Reset, Alone) {
  run(
      [](OnRank on) {
        on.buffer.reset();
        check_works(on);
      },
      1);
}

// Without that rank there is no reset, and no way back.
TEST_P(Reset, APeerThatHasLeft) {
  run([](OnRank on) {
    constexpr int leaver = 1;
    round_trip(on.p, on.buffer);
    if (on.rank == leaver) return;
    for (int i = 0; i < 2; ++i) {
      auto const error = expect_throw<PeerLost>("a reset", [&] { on.buffer.reset(); });
      check_equal(error.peer(), leaver, "peer of the error: ", error.what());
      check_names(error, {"reset", text("rank ", leaver)});
      (void)expect_throw<PeerLost>("a call after it", [&] { round_trip(on.p, on.buffer); });
    }
    on.lateness.end_together(ranks - 1);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, Reset, testing::Values(Launch::threads, Launch::processes),
                         [](auto const& each) { return name_of(each.param); });

}  // namespace
}  // namespace switchyard::test
