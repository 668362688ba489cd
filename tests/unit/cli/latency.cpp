// The latency benchmark: its checks see what is wrong, and its figures are what they say.
#include <gtest/gtest.h>

#include <algorithm>

#include "cli/bench/low_latency_calls.hpp"
#include "cli/bench/report.hpp"
#include "oracle/payload.hpp"

namespace switchyard::cli {
namespace {

Case make_case(SlotLayout layout) {
  BenchOptions options;
  options.mode = Mode::latency;
  options.problem = {.ranks = 1, .hidden = 300, .top_k = 3, .experts = 7, .payload = Payload::fp8_cast};
  options.engine = EngineKind::cpu;
  options.latency.layout = layout;
  options.latency.cast = SendCast::fp8_ue8m0;
  options.latency.input_sets = 2;
  auto const route = [](Problem const& problem) { return make_routing(problem, RoutingKind::uniform); };
  return {options, route, 5};
}

class Latency : public testing::TestWithParam<SlotLayout> {
 protected:
  Latency() {
    calls_.select(1);
    calls_.run(Part::dispatch);
  }
  std::optional<std::string> check_dispatch() {
    return oracle::mismatch_of([&] { checker_.check_received(calls_.received()); });
  }
  std::optional<std::string> check_combine() {
    return oracle::mismatch_of([&] { checker_.check_combined(calls_.out()); });
  }

  Case case_ = make_case(GetParam());
  Communicator communicator_ = Communicator::join(Communicator::in_process_store(), 0, 1);
  LatencyCalls calls_{case_, communicator_};
  oracle::SeededData data_{case_.problem(1), case_.routing(1)};
  oracle::LowLatencyChecker checker_{case_.terms(1), case_.slot_terms(), data_, 0};
};

TEST_P(Latency, ChecksSeeOneWrongByte) {
  EXPECT_EQ(check_dispatch(), std::nullopt);
  for (auto const part : {&LowLatencyReceived::x, &LowLatencyReceived::scales, &LowLatencyReceived::source_token}) {
    auto* const first = (calls_.received().*part).data<std::byte>();  // of a row that is taken: expert 0 has some
    *first ^= std::byte{1};
    EXPECT_NE(check_dispatch(), std::nullopt);
    *first ^= std::byte{1};
  }
  checker_.for_each_output(calls_.received(), [&](std::int64_t slot, std::span<std::byte const> row) {
    std::ranges::copy(row, calls_.outputs().data<std::byte>() + static_cast<std::size_t>(slot) * row.size());
  });
  calls_.run(Part::combine);
  EXPECT_EQ(check_combine(), std::nullopt);
  calls_.out().data<std::uint16_t>()[299] ^= 1;
  EXPECT_NE(check_combine(), std::nullopt);
}

TEST_P(Latency, ChecksSeeAWrongCount) {
  auto const& received = calls_.received();
  if (GetParam() == SlotLayout::expert_major) {
    received.ranges.data<std::int64_t>()[0] += 1;
  } else {
    received.counts.data<std::int32_t>()[0] += 1;
  }
  EXPECT_NE(check_dispatch(), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Layouts, Latency, testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

TEST(LatencyReport, PercentilesAreOfTheSlowestRank) {
  Case const of = make_case(SlotLayout::rank_major);
  std::vector<Samples> ranks(2);
  for (int i = 0; i <= 1000; ++i) {
    ranks[0].of(Clock::graph, Part::dispatch).push_back(i % 2 == 0 ? i : 0);
    ranks[1].of(Clock::graph, Part::dispatch).push_back(i % 2 == 0 ? 0 : i);
  }
  CaseReport const result = make_case_report(of, ranks);
  ASSERT_EQ(result.times.size(), 1U);
  EXPECT_DOUBLE_EQ(result.times[0].us.p50, 500);
  EXPECT_DOUBLE_EQ(result.times[0].us.p999, 999);
  // One rank: each token goes there once.
  EXPECT_DOUBLE_EQ(result.sent.combine, 5 * 600);
  EXPECT_DOUBLE_EQ(result.times[0].gbps, result.sent.dispatch / 500 / 1e3);
}

}  // namespace
}  // namespace switchyard::cli
