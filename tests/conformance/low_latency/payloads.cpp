// Low-latency mode: what travels: every dtype, casts on the way, scales of the caller's, opaque bytes.
#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

class LowLatencyPayloads : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  static void run(SlotCase c) {
    c.layout = GetParam();
    run_slot_case(c);
  }
};

TEST_P(LowLatencyPayloads, Dtypes) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) run({.hidden = 133, .dtype = dtype});
}

class LowLatencyCasts : public LowLatencyTest,
                        public testing::WithParamInterface<std::tuple<SlotLayout, SendCast>> {};

TEST_P(LowLatencyCasts, EveryDtype) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::int64_t const hidden : {1, 128, 130, 512, 700}) {
      auto const [layout, cast] = GetParam();
      SlotCase const c{.tokens = 12, .hidden = hidden, .dtype = dtype, .cast = cast, .layout = layout};
      if (!run_slot_case(c)) return;
    }
  }
}

TEST_P(LowLatencyCasts, RowsOfAModel) {
  auto const [layout, cast] = GetParam();
  run_slot_case({.ranks = 2, .tokens = 8, .hidden = 7168, .cast = cast, .layout = layout, .workers = 2});
}

TEST_P(LowLatencyCasts, StridedRows) {
  auto const [layout, cast] = GetParam();
  run_slot_case({.hidden = 260, .cast = cast, .layout = layout, .extra_stride = 5});
}

TEST_P(LowLatencyPayloads, Fp8WithScalesOfTheCaller) {
  for (bool const by_column : {false, true}) {
    for (std::int64_t const hidden : {64, 128, 300, 1024})
      run({.tokens = 10, .hidden = hidden, .dtype = DType::f8e4m3, .scales_by_column = by_column});
  }
}

TEST_P(LowLatencyPayloads, OpaqueBytes) {
  for (std::int64_t const bytes : {1, 3, 16, 50, 1021, 4096}) {
    for (std::int64_t const scales : {0, 1, 5, 16, 96})
      run({.hidden = 128, .dtype = DType::u8, .row_bytes = bytes, .scale_bytes = scales});
  }
}

TEST_P(LowLatencyPayloads, OpaqueBytesInStridedRows) {
  run({.hidden = 64, .dtype = DType::u8, .row_bytes = 37, .scale_bytes = 3, .extra_stride = 3});
}

// Rows of other widths, dtypes and layouts in the same frames: what one call leaves must not show in the next.
TEST_P(LowLatencyPayloads, EverythingInOneBuffer) {
  SlotCase const base{.tokens = 10, .hidden = 300, .layout = GetParam(), .max_results = 2};
  std::vector<SlotCase> cases(7, base);
  cases[1].cast = SendCast::fp8_ue8m0;
  cases[2].dtype = DType::f8e4m3;
  cases[3].layout = base.by_expert() ? SlotLayout::rank_major : SlotLayout::expert_major;
  cases[4].dtype = DType::u8;
  cases[4].row_bytes = 77;
  cases[4].scale_bytes = 9;
  cases[5].cast = SendCast::fp8;
  cases[6].dtype = DType::f16;
  cases[6].combine_dtype = DType::f16;
  std::vector<SlotProblem> problems;
  for (SlotCase& c : cases) {
    c.seed = mix(c.seed, problems.size());
    problems.push_back(make_slot_problem(c));
  }
  run_slot_buffers(base, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 3; ++i) {
      for (SlotProblem const& p : problems) slot_round_trip(p, rank, buffer);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyPayloads,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });
INSTANTIATE_TEST_SUITE_P(Casts, LowLatencyCasts,
                         testing::Combine(testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                                          testing::Values(SendCast::fp8, SendCast::fp8_pow2, SendCast::fp8_ue8m0)),
                         [](auto const& one) {
                           return text(name_of(std::get<0>(one.param)), "_", name_of(std::get<1>(one.param)));
                         });

}  // namespace
}  // namespace switchyard::test
