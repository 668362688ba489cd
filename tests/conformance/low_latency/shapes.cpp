// Low-latency mode: both layouts in every shape, routing and number of tokens.
#include "support/low_latency_trip.hpp"

namespace switchyard::test {
namespace {

class LowLatencyShapes : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  // All of them, in the layout of the test.
  static void run(std::vector<SlotCase> cases) {
    for (SlotCase& c : cases) c.layout = GetParam();
    run_slot_cases(cases);
  }
};

TEST_P(LowLatencyShapes, Worlds) {
  for (int const ranks : {1, 2, 3, 5, 8}) run({{.ranks = ranks, .experts = 11}});
}

TEST_P(LowLatencyShapes, FewerExpertsThanRanks) {
  run({{.ranks = 5, .experts = 2, .top_k = 2}, {.ranks = 4, .experts = 1, .top_k = 1}});
}

TEST_P(LowLatencyShapes, Hidden) {
  for (std::int64_t const hidden : {1, 7, 64, 127, 129, 1000, 7168}) run({{.tokens = 4, .hidden = hidden}});
}

TEST_P(LowLatencyShapes, Routings) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::one_expert, Routing::sparse,
                                Routing::none, Routing::repeated}) {
    run({{.tokens = 15, .experts = 7, .routing = routing}, {.tokens = 40, .top_k = 5, .routing = routing}});
  }
}

TEST_P(LowLatencyShapes, TokenCounts) {
  for (Tokens const counts :
       {Tokens::equal, Tokens::varied, Tokens::first_only, Tokens::last_none, Tokens::all_none}) {
    run({{.tokens = 9, .counts = counts}, {.tokens = 1, .counts = counts}});
  }
}

// More than are looked at together.
TEST_P(LowLatencyShapes, SeveralBatchesOfTokens) {
  for (Routing const routing : {Routing::uniform, Routing::skewed, Routing::repeated}) {
    run({{.tokens = 129, .hidden = 16, .experts = 21, .top_k = 4, .routing = routing},
         {.tokens = 300, .hidden = 16, .experts = 40, .top_k = 9, .routing = routing}});
  }
  run({{.tokens = 257, .counts = Tokens::equal, .hidden = 16, .experts = 70, .top_k = 64}});
}

TEST_P(LowLatencyShapes, Slots) {
  for (int const top_k : {1, 2, 9, 64}) run({{.tokens = 5, .experts = 70, .top_k = top_k}});
  run({{.tokens = 5, .experts = 4, .top_k = 8}});  // more slots than experts
  run({{.tokens = 12, .experts = 300, .top_k = 8}});
}

TEST_P(LowLatencyShapes, IdsOfEitherWidth) {
  run({{.id_dtype = DType::i32}, {.id_dtype = DType::i64}});
}

TEST_P(LowLatencyShapes, WithoutWeights) {
  run({{.weights = false}});
}

TEST_P(LowLatencyShapes, StridedRows) {
  run({{.extra_stride = 1}, {.hidden = 64, .extra_stride = 8}, {.zero_copy = false, .extra_stride = 3}});
}

TEST_P(LowLatencyShapes, FramesOfEveryNumber) {
  for (int const results : {1, 2, 3, 16}) run({{.max_results = results}});
}

TEST_P(LowLatencyShapes, Workers) {
  for (int const workers : {1, 2, 5}) run({{.tokens = 60, .hidden = 300, .workers = workers}});
}

TEST_P(LowLatencyShapes, ManyTokens) {
  run({{.ranks = 4, .tokens = 128, .hidden = 512, .experts = 32, .top_k = 8, .workers = 2}});
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyShapes,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
