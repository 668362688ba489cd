// Ranks that ask for different things in low-latency mode, and options that are out of range or differ: an error,
// not a hang.
#include "support/low_latency_refusal.hpp"

namespace switchyard::test {
namespace {

class LowLatencyBadAgreement : public LowLatencyTest {};

LowLatencyOptions impatient(SlotRank const& rank) {
  LowLatencyOptions options = rank.options();
  options.timeout = std::chrono::milliseconds{by_scale(4000, 2000)};
  options.max_row_bytes = 80;  // room for f32
  return options;
}

// Every rank learns of it, the buffer has failed, and comes back by a reset.
template <typename Call>
void expect_disagreement(SlotRank& rank, LowLatencyBuffer& buffer, SlotProblem const& p, Call const& call) {
  (void)expect_throw<InvalidArgument>("a call that ranks do not agree on", call);
  rank.communicator.barrier();
  (void)expect_throw_any("a call of a buffer that has failed", [&] {
    SlotTrip trip(p, rank, buffer);
    (void)buffer.dispatch(trip.dispatch_args());
    buffer.synchronize();
  });
  rank.communicator.barrier();
  buffer.reset();
  slot_round_trip(p, rank, buffer);
}

void dispatches_differ(std::string const& what, SlotCase const& c,
                       std::function<void(LowLatencyDispatchArgs&)> const& spoil) {
  SCOPED_TRACE(what);
  SlotProblem const p = make_slot_problem(c);
  run_slots(c, [&](SlotRank& rank) {
    LowLatencyBuffer buffer(rank.communicator, impatient(rank));
    SlotTrip trip(p, rank, buffer);
    LowLatencyDispatchArgs args = trip.dispatch_args();
    if (rank.rank() == slot_culprit) spoil(args);
    expect_disagreement(rank, buffer, p, [&] {
      (void)buffer.dispatch(args);
      buffer.synchronize();
    });
    rank.communicator.barrier();
  });
}

// Sources that take rows or scales for other widths write over one another before any rank can know. The call
// fails, so nobody reads that; a thread sanitizer sees the writes, rightly.
#if defined(__SANITIZE_THREAD__)  // GCC's name for it
constexpr bool writes_may_meet = false;
#elif defined(__has_feature)  // clang's
constexpr bool writes_may_meet = !__has_feature(thread_sanitizer);
#else
constexpr bool writes_may_meet = true;
#endif

TEST_F(LowLatencyBadAgreement, DispatchOfOtherThings) {
  dispatches_differ("dtype", slot_refusal_case(), [](LowLatencyDispatchArgs& a) { a.x.dtype = DType::f16; });
  dispatches_differ("weights", slot_refusal_case(SlotLayout::rank_major),
                    [](LowLatencyDispatchArgs& a) { a.topk_weights = {}; });
}

TEST_F(LowLatencyBadAgreement, DispatchOfOtherWidths) {
  if (!writes_may_meet) GTEST_SKIP() << "a race that is meant";
  SlotCase const c = slot_refusal_case();
  dispatches_differ("layout", c, [](LowLatencyDispatchArgs& a) { a.layout = SlotLayout::rank_major; });
  dispatches_differ("cast", c, [](LowLatencyDispatchArgs& a) { a.cast = SendCast::fp8; });
  SlotCase cast = c;
  cast.cast = SendCast::fp8_pow2;
  dispatches_differ("kind of cast", cast, [](LowLatencyDispatchArgs& a) { a.cast = SendCast::fp8_ue8m0; });
  SlotCase opaque = c;
  opaque.dtype = DType::u8;
  opaque.row_bytes = 30;
  opaque.scale_bytes = 4;
  dispatches_differ("row bytes", opaque, [](LowLatencyDispatchArgs& a) { --a.x.shape[1]; });
  dispatches_differ("scale bytes", opaque, [](LowLatencyDispatchArgs& a) { --a.scales.shape[1]; });
  dispatches_differ("scales", opaque, [](LowLatencyDispatchArgs& a) { a.scales = {}; });
}

void combines_differ(std::string const& what, std::function<void(LowLatencyCombineArgs&)> const& spoil) {
  SCOPED_TRACE(what);
  SlotCase c = slot_refusal_case();
  c.zero_copy = false;  // so that it may be coded
  SlotProblem const p = make_slot_problem(c);
  run_slots(c, [&](SlotRank& rank) {
    LowLatencyBuffer buffer(rank.communicator, impatient(rank));
    SlotTrip trip(p, rank, buffer);
    trip.dispatch();
    LowLatencyCombineArgs args = trip.prepare_combine();
    if (rank.rank() == slot_culprit) spoil(args);
    // Over nodes a dispatch has ended when its chunks have left, so a peer may be in the combine before that. What
    // it finds there fails the buffer on all ranks, whichever call they are in.
    rank.communicator.barrier();
    expect_disagreement(rank, buffer, p, [&] {
      buffer.combine(args);
      buffer.synchronize();
    });
    rank.communicator.barrier();
  });
}

TEST_F(LowLatencyBadAgreement, Combine) {
  combines_differ("dtype", [](LowLatencyCombineArgs& a) { a.x.dtype = a.out.dtype = DType::f16; });
  combines_differ("coding", [](LowLatencyCombineArgs& a) { a.coding = CombineCoding::logfmt10; });
}

// Calls in another order are a mistake that no rank can see by itself: nobody may hang.
TEST_F(LowLatencyBadAgreement, DispatchMeetsCombine) {
  SlotCase const c = slot_refusal_case();
  SlotProblem const p = make_slot_problem(c);
  run_slots(c, [&](SlotRank& rank) {
    LowLatencyOptions options = impatient(rank);
    options.timeout = std::chrono::milliseconds{by_scale(2000, 700)};
    LowLatencyBuffer buffer(rank.communicator, options);
    SlotTrip trip(p, rank, buffer);
    SlotTrip other(p, rank, buffer);
    trip.dispatch();
    LowLatencyCombineArgs const args = trip.prepare_combine();
    (void)expect_throw_any("calls that differ", [&] {
      if (rank.rank() == slot_culprit) buffer.combine(args);
      if (rank.rank() != slot_culprit) (void)buffer.dispatch(other.dispatch_args());
      buffer.synchronize();
    });
    rank.communicator.barrier();
    buffer.reset();
    slot_round_trip(p, rank, buffer);
    rank.communicator.barrier();
  });
}

using SpoilOptions = std::function<void(LowLatencyOptions&)>;

void options_refused(std::string_view name, SpoilOptions const& spoil, bool all) {
  SlotCase const c = slot_refusal_case();
  SlotProblem const p = make_slot_problem(c);
  SCOPED_TRACE(text(name, all ? " on all ranks" : " on one rank"));
  run_slots(c, [&](SlotRank& rank) {
    LowLatencyOptions options = rank.options();
    if (all || rank.rank() == slot_culprit) spoil(options);
    expect_slot_refusal(std::string(name), {name},
                        [&] { LowLatencyBuffer const buffer(rank.communicator, options); });
    LowLatencyBuffer buffer(rank.communicator, rank.options());
    slot_round_trip(p, rank, buffer);
    rank.communicator.barrier();
  });
}

TEST_F(LowLatencyBadAgreement, OptionsOutOfRange) {
  for (bool const all : {true, false}) {
    options_refused(
        "max_tokens", [](auto& o) { o.max_tokens = -1; }, all);
    options_refused(
        "max_tokens", [](auto& o) { o.max_tokens = std::int64_t{1} << 40U; }, all);
    options_refused(
        "hidden", [](auto& o) { o.hidden = 0; }, all);
    options_refused(
        "num_experts", [](auto& o) { o.num_experts = 0; }, all);
    options_refused(
        "top_k", [](auto& o) { o.top_k = 0; }, all);
    options_refused(
        "top_k", [](auto& o) { o.top_k = 65; }, all);
    options_refused(
        "max_results", [](auto& o) { o.max_results = 0; }, all);
    options_refused(
        "max_results", [](auto& o) { o.max_results = 17; }, all);
    options_refused(
        "max_row_bytes", [](auto& o) { o.max_row_bytes = -1; }, all);
    options_refused(
        "max_scale_bytes", [](auto& o) { o.max_scale_bytes = -1; }, all);
    options_refused(
        "num_workers", [](auto& o) { o.num_workers = -1; }, all);
    options_refused(
        "num_sms", [](auto& o) { o.num_sms = -1; }, all);
    options_refused(
        "timeout", [](auto& o) { o.timeout = std::chrono::milliseconds{-1}; }, all);
  }
}

TEST_F(LowLatencyBadAgreement, OptionsThatDiffer) {
  options_refused(
      "max_tokens", [](auto& o) { ++o.max_tokens; }, false);
  options_refused(
      "hidden", [](auto& o) { ++o.hidden; }, false);
  options_refused(
      "num_experts", [](auto& o) { ++o.num_experts; }, false);
  options_refused(
      "top_k", [](auto& o) { ++o.top_k; }, false);
  options_refused(
      "max_results", [](auto& o) { ++o.max_results; }, false);
  options_refused(
      "max_row_bytes", [](auto& o) { o.max_row_bytes = 99; }, false);
  options_refused(
      "max_scale_bytes", [](auto& o) { o.max_scale_bytes = 99; }, false);
}

}  // namespace
}  // namespace switchyard::test
