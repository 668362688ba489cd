// Arguments of a low-latency dispatch that one rank gets wrong.
#include "support/low_latency_refusal.hpp"

namespace switchyard::test {
namespace {

class LowLatencyBadDispatch : public LowLatencyTest {};

using BadDispatchCall = BadCall<LowLatencyDispatchArgs>;

void refuse_dispatches(SlotCase const& c, std::vector<BadDispatchCall> const& bad_calls) {
  SlotProblem const p = make_slot_problem(c);
  run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip trip(p, rank, buffer);
    refuse_on_culprit<LowLatencyDispatchArgs>(
        bad_calls, rank, trip.dispatch_args(),
        [&](LowLatencyDispatchArgs const& args) { (void)buffer.dispatch(args); });
    ReceiveHook hook;
    refuse_on_culprit<LowLatencyDispatchArgs>(
        bad_calls, rank, trip.dispatch_args(),
        [&](LowLatencyDispatchArgs const& args) { (void)buffer.send_dispatch(args, hook); });
    check(!hook, "a call that was refused gave a hook");
    slot_round_trip(p, rank, buffer);
  });
}

TEST_F(LowLatencyBadDispatch, X) {
  refuse_dispatches(slot_refusal_case(), bad_x<LowLatencyDispatchArgs>());
  refuse_dispatches(
      slot_refusal_case(),
      {{"7 tokens of 6", [](LowLatencyDispatchArgs& a) { a.x.shape[0] = 7; }, {"x", "max_tokens", "7"}}});
}

TEST_F(LowLatencyBadDispatch, Device) {
  Device const wrong = on_gpu() ? Device::cpu : Device::cuda;
  refuse_dispatches(
      slot_refusal_case(),
      {
          {"x", [=](LowLatencyDispatchArgs& a) { a.x.device = wrong; }, {"x", "device"}},
          {"ids", [=](LowLatencyDispatchArgs& a) { a.topk_idx.device = wrong; }, {"topk_idx", "device"}},
      });
}

TEST_F(LowLatencyBadDispatch, Ids) {
  refuse_dispatches(slot_refusal_case(), bad_ids<LowLatencyDispatchArgs>());
}

// CPU engine: before anything is sent.
TEST_F(LowLatencyBadDispatch, IdsOutOfRange) {
  if (on_gpu()) GTEST_SKIP() << "the CUDA engine does not look: tests/gpu/low_latency/threads/engine.cpp";
  static std::vector<std::int64_t> ids;
  auto const set = [](std::int64_t id) {
    return [id](LowLatencyDispatchArgs& a) {
      auto const* const good = static_cast<std::int64_t const*>(a.topk_idx.data);
      ids.assign(good, good + a.topk_idx.numel());
      ids[5] = id;
      a.topk_idx.data = ids.data();
    };
  };
  refuse_dispatches(slot_refusal_case(), {
                                             {"8 of 8", set(8), {"topk_idx", "8"}},
                                             {"-2", set(-2), {"topk_idx", "-2"}},
                                             {"2^40", set(std::int64_t{1} << 40U), {"topk_idx", "1099511627776"}},
                                             {"-2^62", set(-(std::int64_t{1} << 62U)), {"topk_idx"}},
                                         });
}

// As many rows for an expert as the rank may have tokens, and one more: an id that repeats within a token is a row
// each.
TEST_F(LowLatencyBadDispatch, MoreRowsOfAnExpertThanTokens) {
  if (on_gpu()) GTEST_SKIP() << "the CUDA engine does not look: tests/gpu/low_latency/threads/engine.cpp";
  static std::vector<std::int64_t> ids;
  refuse_dispatches(slot_refusal_case(), {{"7 rows of 6",
                                           [](LowLatencyDispatchArgs& a) {
                                             ids = {7, 7, 7, 7, 7, 7, 1, -1, 0, 7, -1, -1};
                                             a.topk_idx.data = ids.data();
                                           },
                                           {"topk_idx[4, 1]", "6", "7", "repeats"}}});
}

ConstTensorView like(ConstTensorView const& x, DType dtype, std::initializer_list<std::int64_t> shape) {
  ConstTensorView view(x.data, dtype, shape);
  view.device = x.device;
  return view;
}

TEST_F(LowLatencyBadDispatch, Weights) {
  refuse_dispatches(slot_refusal_case(SlotLayout::rank_major), bad_weights<LowLatencyDispatchArgs>());
  refuse_dispatches(slot_refusal_case(SlotLayout::expert_major),
                    {
                        {"expert_major",
                         [](LowLatencyDispatchArgs& a) {
                           a.topk_weights = like(a.x, DType::f32, {6, 2});
                         },
                         {"topk_weights"}},
                    });
}

TEST_F(LowLatencyBadDispatch, Scales) {
  SlotCase c = slot_refusal_case();
  refuse_dispatches(c, {{"for bf16",
                         [](LowLatencyDispatchArgs& a) {
                           a.scales = like(a.x, DType::f32, {6, 1});
                         },
                         {"scales", "bf16"}}});
  c.dtype = DType::f8e4m3;
  refuse_dispatches(
      c, {
             {"none", [](LowLatencyDispatchArgs& a) { a.scales = {}; }, {"scales"}},
             {"f16", [](LowLatencyDispatchArgs& a) { a.scales.dtype = DType::f16; }, {"scales", "f16"}},
             {"2 groups", [](LowLatencyDispatchArgs& a) { a.scales.shape[1] = 2; }, {"scales", "1", "2"}},
             {"5 tokens", [](LowLatencyDispatchArgs& a) { a.scales.shape[0] = 5; }, {"scales", "6", "5"}},
         });
}

TEST_F(LowLatencyBadDispatch, OpaqueRows) {
  SlotCase c = slot_refusal_case();
  c.dtype = DType::u8;
  c.row_bytes = 40;
  c.scale_bytes = 4;
  refuse_dispatches(
      c, {
             {"41 bytes of 40",
              [](LowLatencyDispatchArgs& a) { a.x.shape[1] = 41; },
              {"x", "max_row_bytes", "40", "41"}},
             {"no bytes", [](LowLatencyDispatchArgs& a) { a.x.shape[1] = 0; }, {"x"}},
             {"5 scale bytes of 4",
              [](LowLatencyDispatchArgs& a) { a.scales.shape[1] = 5; },
              {"max_scale_bytes", "4", "5"}},
             {"f32 scales", [](LowLatencyDispatchArgs& a) { a.scales.dtype = DType::f32; }, {"scales", "f32"}},
             {"scales apart", [](LowLatencyDispatchArgs& a) { a.scales.strides[1] = 2; }, {"scales", "stride"}},
         });
}

TEST_F(LowLatencyBadDispatch, RowsWiderThanTheBufferTakes) {
  refuse_dispatches(slot_refusal_case(),
                    {{"f32", [](LowLatencyDispatchArgs& a) { a.x.dtype = DType::f32; }, {"x", "max_row_bytes"}}});
}

TEST_F(LowLatencyBadDispatch, CastAndLayout) {
  SlotCase c = slot_refusal_case();
  refuse_dispatches(
      c,
      {
          {"cast 9", [](LowLatencyDispatchArgs& a) { a.cast = static_cast<SendCast>(9); }, {"cast", "9"}},
          {"layout 9", [](LowLatencyDispatchArgs& a) { a.layout = static_cast<SlotLayout>(9); }, {"layout", "9"}},
      });
  c.dtype = DType::f8e4m3;
  refuse_dispatches(
      c, {{"cast of fp8", [](LowLatencyDispatchArgs& a) { a.cast = SendCast::fp8; }, {"cast", "f8e4m3"}}});
  c.dtype = DType::u8;
  c.row_bytes = 8;
  refuse_dispatches(
      c, {{"cast of bytes", [](LowLatencyDispatchArgs& a) { a.cast = SendCast::fp8_ue8m0; }, {"cast", "u8"}}});
}

TEST_F(LowLatencyBadDispatch, CountersAndWorkers) {
  static std::vector<std::int64_t> numbers(8);
  auto const counters = [](DType dtype, std::int64_t count) {
    TensorView view(numbers.data(), dtype, {count});
    view.device = on_gpu() ? Device::cuda : Device::cpu;
    return view;
  };
  refuse_dispatches(
      slot_refusal_case(),
      {
          {"4 experts of 3",
           [=](LowLatencyDispatchArgs& a) { a.received_per_expert = counters(DType::i32, 4); },
           {"received_per_expert", "3", "4"}},
          {"i64 counts",
           [=](LowLatencyDispatchArgs& a) { a.received_per_expert = counters(DType::i64, 3); },
           {"received_per_expert", "i64"}},
          {"counts of 4 experts of 3",
           [=](LowLatencyDispatchArgs& a) { a.counts = counters(DType::i32, 4); },
           {"counts", "3", "4"}},
          {"i64 counts to keep",
           [=](LowLatencyDispatchArgs& a) { a.counts = counters(DType::i64, 3); },
           {"counts", "i64"}},
          {"2 ranks of 3",
           [=](LowLatencyDispatchArgs& a) { a.wait_ns_per_source = counters(DType::i64, 2); },
           {"wait_ns_per_source", "3", "2"}},
          {"i32 times",
           [=](LowLatencyDispatchArgs& a) { a.wait_ns_per_source = counters(DType::i32, 3); },
           {"wait_ns_per_source", "i32"}},
          {"-1 workers", [](LowLatencyDispatchArgs& a) { a.num_workers = -1; }, {"num_workers", "-1"}},
          {"-1 SMs", [](LowLatencyDispatchArgs& a) { a.num_sms = -1; }, {"num_sms", "-1"}},
      });
}

}  // namespace
}  // namespace switchyard::test
