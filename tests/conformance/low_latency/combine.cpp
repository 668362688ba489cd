// Low-latency mode: sums, bit for bit; outputs where the library wants them and elsewhere; codings.
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
