// Arguments of a low-latency combine that one rank gets wrong; handles that are not good any more; masks and
// outputs.
#include <optional>

#include "support/low_latency_refusal.hpp"

namespace switchyard::test {
namespace {

class LowLatencyBadCombine : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {};

using BadCombineCall = BadCall<LowLatencyCombineArgs>;

void refuse_combines(SlotCase const& c, std::vector<BadCombineCall> const& bad_calls) {
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip trip(p, rank, buffer);
    trip.dispatch();
    LowLatencyCombineArgs good = trip.prepare_combine();  // holds the result, too
    refuse_on_culprit<LowLatencyCombineArgs>(bad_calls, rank, good,
                                             [&](LowLatencyCombineArgs const& args) { buffer.combine(args); });
    ReceiveHook hook;
    refuse_on_culprit<LowLatencyCombineArgs>(
        bad_calls, rank, good, [&](LowLatencyCombineArgs const& args) { buffer.send_combine(args, hook); });
    check(!hook, "a call that was refused gave a hook");
    buffer.combine(good);
    trip.check_combined();
    good = {};
    trip.release();
    slot_round_trip(p, rank, buffer);
  });
}

TEST_P(LowLatencyBadCombine, X) {
  refuse_combines(slot_refusal_case(GetParam()),
                  {
                      {"none", [](LowLatencyCombineArgs& a) { a.x = {}; }, {"x"}},
                      {"2 dimensions", [](LowLatencyCombineArgs& a) { a.x.ndim = 2; }, {"x", "2"}},
                      {"hidden 19", [](LowLatencyCombineArgs& a) { a.x.shape[2] = 19; }, {"x", "20", "19"}},
                      {"fewer slots", [](LowLatencyCombineArgs& a) { --a.x.shape[1]; }, {"x"}},
                      {"fewer groups", [](LowLatencyCombineArgs& a) { --a.x.shape[0]; }, {"x"}},
                      {"f32", [](LowLatencyCombineArgs& a) { a.x.dtype = DType::f32; }, {"x", "f32"}},
                      {"null", [](LowLatencyCombineArgs& a) { a.x.data = nullptr; }, {"x"}},
                      {"rows apart", [](LowLatencyCombineArgs& a) { a.x.strides[1] = 40; }, {"x", "contiguous"}},
                  });
}

TEST_P(LowLatencyBadCombine, Out) {
  refuse_combines(
      slot_refusal_case(GetParam()),
      {
          {"none", [](LowLatencyCombineArgs& a) { a.out = {}; }, {"out"}},
          {"f16 of bf16", [](LowLatencyCombineArgs& a) { a.out.dtype = DType::f16; }, {"out", "bf16", "f16"}},
          {"5 tokens", [](LowLatencyCombineArgs& a) { a.out.shape[0] = 5; }, {"out", "6", "5"}},
          {"hidden 19", [](LowLatencyCombineArgs& a) { a.out.shape[1] = 19; }, {"out", "20", "19"}},
          {"null", [](LowLatencyCombineArgs& a) { a.out.data = nullptr; }, {"out"}},
          {"rows over one another", [](LowLatencyCombineArgs& a) { a.out.strides[0] = 5; }, {"out", "stride"}},
          {"elements apart", [](LowLatencyCombineArgs& a) { a.out.strides[1] = 2; }, {"out", "stride"}},
      });
}

TEST_P(LowLatencyBadCombine, Rest) {
  static std::vector<std::int64_t> numbers(64);
  auto const some = [](DType dtype, std::initializer_list<std::int64_t> shape) {
    TensorView view(numbers.data(), dtype, shape);
    view.device = on_gpu() ? Device::cuda : Device::cpu;
    return view;
  };
  std::vector<BadCombineCall> bad{
      {"no handle", [](LowLatencyCombineArgs& a) { a.handle = {}; }, {"handle"}},
      {"coding 9", [](LowLatencyCombineArgs& a) { a.coding = static_cast<CombineCoding>(9); }, {"coding", "9"}},
      {"2 ranks of 3",
       [=](LowLatencyCombineArgs& a) { a.wait_ns_per_source = some(DType::i64, {2}); },
       {"wait_ns_per_source"}},
      {"i32 times",
       [=](LowLatencyCombineArgs& a) { a.wait_ns_per_source = some(DType::i32, {3}); },
       {"wait_ns_per_source"}},
      {"-1 workers", [](LowLatencyCombineArgs& a) { a.num_workers = -1; }, {"num_workers", "-1"}},
      {"-1 SMs", [](LowLatencyCombineArgs& a) { a.num_sms = -1; }, {"num_sms", "-1"}},
      {"weights of 5 tokens",
       [=](LowLatencyCombineArgs& a) {
         a.topk_weights = some(DType::f32, {5, 2});
       },
       {"topk_weights"}},
  };
  if (GetParam() == SlotLayout::expert_major) {
    bad.push_back({"f16 weights",
                   [=](LowLatencyCombineArgs& a) {
                     a.topk_weights = some(DType::f16, {6, 2});
                   },
                   {"topk_weights"}});
    bad.push_back({"3 slots",
                   [=](LowLatencyCombineArgs& a) {
                     a.topk_weights = some(DType::f32, {6, 3});
                   },
                   {"topk_weights"}});
  } else {
    bad.push_back({"weights by rank",
                   [=](LowLatencyCombineArgs& a) {
                     a.topk_weights = some(DType::f32, {6, 2});
                   },
                   {"topk_weights"}});
  }
  refuse_combines(slot_refusal_case(GetParam()), bad);
}

TEST_P(LowLatencyBadCombine, HandleOfAnotherBuffer) {
  SlotCase const c = slot_refusal_case(GetParam());
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    LowLatencyBuffer other(rank.communicator, rank.options());
    SlotTrip one(p, rank, buffer);
    SlotTrip two(p, rank, other);
    one.dispatch();
    two.dispatch();
    LowLatencyCombineArgs args = one.prepare_combine();
    args.handle = two.received().handle;
    expect_slot_refusal("a handle of another buffer", {"handle"}, [&] { buffer.combine(args); });
    expect_slot_refusal("outputs of another buffer", {"handle"},
                        [&] { (void)buffer.outputs(args.handle, DType::bf16); });
    one.combine();
    two.combine();
    rank.communicator.barrier();
  });
}

// Results from before a reset are void, and hold nothing.
TEST_P(LowLatencyBadCombine, HandleFromBeforeAReset) {
  SlotCase c = slot_refusal_case(GetParam());
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    std::vector<std::unique_ptr<SlotTrip>> old;
    for (int i = 0; i < c.max_results; ++i) {
      old.push_back(std::make_unique<SlotTrip>(p, rank, buffer));
      old.back()->dispatch();
    }
    LowLatencyCombineArgs const args = old.front()->prepare_combine();
    buffer.synchronize();
    buffer.reset();
    expect_slot_refusal("a handle from before", {"handle"}, [&] { buffer.combine(args); });
    expect_slot_refusal("outputs from before", {"handle"}, [&] { (void)buffer.outputs(args.handle, DType::bf16); });
    for (int i = 0; i < 3; ++i) slot_round_trip(p, rank, buffer);
    SlotTrip fresh(p, rank, buffer);
    fresh.dispatch();
    old.clear();  // must not give back what is not theirs
    fresh.check_received();
    rank.communicator.barrier();
    fresh.combine();
    fresh.release();
    slot_round_trip(p, rank, buffer);
  });
}

TEST_P(LowLatencyBadCombine, OutputsAndMasks) {
  SlotCase const c = slot_refusal_case(GetParam());
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip trip(p, rank, buffer);
    trip.dispatch();
    expect_slot_refusal("outputs of f32", {"f32"},
                        [&] { (void)buffer.outputs(trip.received().handle, DType::f32); });
    expect_slot_refusal("outputs of nothing", {"handle"}, [&] { (void)buffer.outputs({}, DType::bf16); });
    for (int const peer : {-1, 3, rank.rank()})
      expect_slot_refusal(text("mask ", peer), {"rank"}, [&] { buffer.mask(peer); });
    trip.combine();
    trip.release();
    slot_round_trip(p, rank, buffer);
  });
}

TEST_P(LowLatencyBadCombine, CodedInPlace) {
  SlotCase c = slot_refusal_case(GetParam());
  c.zero_copy = true;
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip trip(p, rank, buffer);
    trip.dispatch();
    LowLatencyCombineArgs args = trip.prepare_combine();
    args.coding = CombineCoding::logfmt10;
    expect_slot_refusal("a coded combine in place", {"x", "outputs"}, [&] { buffer.combine(args); });
    args.coding = CombineCoding::none;
    buffer.combine(args);
    trip.check_combined();
    args = {};
    trip.release();
  });
}

// Flags tell of rows that have arrived, and of one combine at a time.
TEST_P(LowLatencyBadCombine, TooEarly) {
  SlotCase const c = slot_refusal_case(GetParam());
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 3; ++i) {
      SlotTrip trip(p, rank, buffer);
      trip.dispatch();
      LowLatencyCombineArgs args = trip.prepare_combine();
      ReceiveHook receive;
      buffer.send_combine(args, receive);
      expect_slot_refusal("a combine before the last one's receive half", {"handle", "last combine"},
                          [&] { buffer.combine(args); });
      receive(rank.memory.stream());
      trip.check_combined();
      SlotTrip next(p, rank, buffer);
      next.send();
      args.handle = next.received().handle;
      expect_slot_refusal("a combine before its receive half", {"handle"}, [&] { buffer.combine(args); });
      args = {};
      next.receive();
      next.check_received();
      next.combine();
      next.release();
      trip.release();
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyBadCombine,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
