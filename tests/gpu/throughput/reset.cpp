// Buffer::reset() on the CUDA engine, ranks as threads.
#include "gpu/late.hpp"
#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

class GpuReset : public GpuTest {};

TEST_F(GpuReset, AfterADispatch) {
  expect_dispatches_timed_out(Launch::threads);
}

TEST_F(GpuReset, AfterACombineThatIsMadeAgain) {
  expect_combines_timed_out(Launch::threads);
}

// A handle that was returned before its dispatch failed: following its routes would end the CUDA context.
void expect_void(OnGpuRank const& on, Handle const& handle, std::int64_t rows) {
  Tensor const x = on.buffer.allocate(DType::bf16, {rows, on.p.the.hidden});
  CombineArgs combine;
  combine.x = x;
  combine.handle = handle;
  combine.cuda_stream = on.device.stream();
  auto const error = expect_throw<InvalidArgument>("a handle of before", [&] { (void)on.buffer.combine(combine); });
  check_names(error, {"handle", "before the reset"});
}

// These calls do not wait, so no rank has learned of their failure before the reset. The late rank never makes
// them.
TEST_F(GpuReset, AfterCallsThatOneRankLeftOut) {
  Case const c{.ranks = 3, .tokens = 20, .counts = Tokens::equal, .hidden = 64, .worst = true, .worst_rows = 64};
  Case plain = c;
  plain.worst = false;
  Problem const p = make_problem(plain);
  run_late(c, [&](OnGpuRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int const late : {0, 2}) {
      DispatchArgs const args = uploaded(on, inputs);
      std::vector<Pending<Dispatched>> pending;
      for (int i = 0; i < 2 && on.rank != late; ++i) pending.push_back(on.buffer.dispatch_async(args));
      on.buffer.reset();
      for (Pending<Dispatched>& each : pending)
        (void)expect_throw<Timeout>("a call of before the reset", [&] { each.event().wait(); });
      for (int i = 0; i < 2; ++i) gpu_round_trip(p, on.buffer, on.device);
    }
  });
}

TEST_F(GpuReset, AHandleOfADispatchThatFailed) {
  Case const c{.ranks = 2, .tokens = 20, .counts = Tokens::equal, .hidden = 64, .worst = true, .worst_rows = 64};
  Case plain = c;
  plain.worst = false;
  Problem const p = make_problem(plain);
  run_late(c, [&](OnGpuRank on) {
    RankInputs const inputs(on.p, on.rank);
    DispatchArgs const args = uploaded(on, inputs);
    Dispatched failed;
    on.lateness.expect_timeout(1, [&] {
      failed = on.buffer.dispatch(args);
      on.buffer.synchronize();
    });
    on.buffer.reset();
    // The late rank learned of the failure before it launched anything, so it has no handle.
    if (on.rank == 0) {
      check(failed.handle.given(), "the dispatch did not come back before it failed");
      expect_void(on, failed.handle, c.worst_rows);
    } else {
      Tensor const x = on.buffer.allocate(DType::bf16, {c.worst_rows, c.hidden});
      CombineArgs combine;
      combine.x = x;
      auto const error = expect_throw<InvalidArgument>("no handle", [&] { (void)on.buffer.combine(combine); });
      check_names(error, {"rank 0", "before the reset"});
    }
    for (int i = 0; i < 2; ++i) gpu_round_trip(p, on.buffer, on.device);
  });
}

// Every rank receives more than it has room for, and nobody waits: each names the cause, whichever rank finds it
// first.
TEST_F(GpuReset, AfterTooManyRowsAtAllRanks) {
  run_late({.ranks = 3, .tokens = 20, .counts = Tokens::equal, .hidden = 64}, [](OnGpuRank on) {
    RankInputs const inputs(on.p, on.rank);
    DispatchArgs args = uploaded(on, inputs);
    args.num_worst_tokens = 5;
    auto const error = expect_throw<InvalidArgument>("too few rows", [&] {
      static_cast<void>(on.buffer.dispatch(args));
      on.buffer.synchronize();
    });
    check_names(error, {"num_worst_tokens", "expected at least", "seen 5"});
    on.buffer.reset();
    for (int i = 0; i < 2; ++i) gpu_round_trip(on.p, on.buffer, on.device);
  });
}

TEST_F(GpuReset, WithoutAFailure) {
  run_late({.ranks = 3, .tokens = 20, .hidden = 64}, [](OnGpuRank on) {
    RankInputs const inputs(on.p, on.rank);
    for (int i = 0; i < 3; ++i) {
      Pending<Dispatched> pending = on.buffer.dispatch_async(uploaded(on, inputs));
      on.buffer.reset();
      Dispatched const held = pending.get();
      DispatchChecker(on.p, on.rank, Travel::fresh, EngineKind::cuda).check_dispatch(on.device.download(held));
      gpu_combine(on.p, on.buffer, on.device, held.handle, {});
      reset_and_go_on(on);
    }
  });
}

}  // namespace
}  // namespace switchyard::test
