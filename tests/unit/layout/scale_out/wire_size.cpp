// What crosses between nodes is little more than the rows; and it is as many bytes as are computed.
#include "layout/scale_out/wire_size.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "layout/scale_out/notify.hpp"
#include "support/chunks.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

constexpr std::int64_t num_tokens = 4096;
constexpr int top_k = 8;
constexpr int num_experts = 256;

// Different experts for each token, the popular ones more often: expert e with weight 1 / (e + 1) ^ skew.
std::vector<std::int64_t> top_k_ids(std::uint64_t seed, double skew) {
  Random random(seed);
  std::vector<std::int64_t> ids;
  std::vector<std::pair<double, std::int64_t>> keys(num_experts);
  std::vector<double> weights;
  for (int expert = 0; expert < num_experts; ++expert) weights.push_back(std::pow(expert + 1.0, -skew));
  for (std::int64_t token = 0; token < num_tokens; ++token) {
    for (std::size_t expert = 0; expert < keys.size(); ++expert) {
      double const uniform = (static_cast<double>(random.bits() >> 11U) + 0.5) * 0x1p-53;
      keys[expert] = {-std::log(uniform) / weights[expert], static_cast<std::int64_t>(expert)};
    }
    std::partial_sort(keys.begin(), keys.begin() + top_k, keys.end());
    for (int slot = 0; slot < top_k; ++slot) ids.push_back(keys[static_cast<std::size_t>(slot)].second);
  }
  return ids;
}

struct Dispatch {
  Topology topology = Topology::of_sizes(std::vector{4, 4});
  ExpertSplit experts{num_experts, 8};
  std::vector<std::vector<NodeTokens>> tokens;  // by source, then node
  std::int64_t pairs = 0;                       // (token, other node), counted from the ids

  explicit Dispatch(double skew) {
    for (int source = 0; source < topology.num_ranks(); ++source) {
      auto const ids = top_k_ids(static_cast<std::uint64_t>(source), skew);
      tokens.push_back(scale_out::tokens_by_node({ids.data(), DType::i64, {num_tokens, top_k}}, topology, experts));
      for (std::size_t token = 0; token < num_tokens; ++token) {
        auto const of = std::span(ids).subspan(token * top_k, top_k);
        pairs += std::ranges::any_of(of, [&](std::int64_t e) { return e / 128 != source / 4; }) ? 1 : 0;
      }
    }
  }

  [[nodiscard]] WireSize size(std::size_t row_bytes, OutputLayout layout) const {
    DispatchTerms const terms{
        .layout = layout, .top_k = top_k, .weights = true, .row_bytes = row_bytes, .max_tokens = num_tokens};
    WireSize sum;
    for (int source = 0; source < topology.num_ranks(); ++source)
      sum += source_wire_size(terms, topology, experts, source, tokens[static_cast<std::size_t>(source)],
                              default_chunk_bytes);
    return sum;
  }
};

void expect_little_more_than_rows(Dispatch const& dispatch, OutputLayout layout) {
  for (auto const& [row_bytes, most_percent] : {std::pair<std::size_t, double>{14336, 0.5}, {2048, 2.0}}) {
    WireSize const size = dispatch.size(row_bytes, layout);
    EXPECT_EQ(size.rows, dispatch.pairs);
    EXPECT_EQ(size.payload, dispatch.pairs * static_cast<std::int64_t>(row_bytes));
    double const percent =
        100.0 * static_cast<double>(size.bytes - size.payload) / static_cast<double>(size.payload);
    EXPECT_GT(percent, 0);
    EXPECT_LE(percent, most_percent) << "rows of " << row_bytes << " bytes";
    std::string const name = std::to_string(row_bytes) + (layout == OutputLayout::flat ? "_flat" : "_expanded");
    testing::Test::RecordProperty(name + "_percent", std::to_string(percent));
    testing::Test::RecordProperty(name + "_rows", std::to_string(size.rows));
    testing::Test::RecordProperty(name + "_writes", std::to_string(size.writes));
  }
}

TEST(WireSize, LittleMoreThanRowsWhenExpertsAreEquallyPopular) {
  Dispatch const dispatch(0);
  expect_little_more_than_rows(dispatch, OutputLayout::flat);
  expect_little_more_than_rows(dispatch, OutputLayout::expanded);
}

TEST(WireSize, LittleMoreThanRowsWhenSomeExpertsArePopular) {
  Dispatch const dispatch(1);
  expect_little_more_than_rows(dispatch, OutputLayout::flat);
  expect_little_more_than_rows(dispatch, OutputLayout::expanded);
}

TEST(WireSize, IsWhatIsWritten) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    StreamOfJob const stream(job, 0, job.topology().num_nodes() - 1);
    std::size_t const slot_bytes = least_dispatch_chunk(job.terms, stream.experts) + 500;
    auto const chunks = stream.write(slot_bytes);
    std::size_t bytes = notify_bytes(stream.experts);
    for (ChunkBytes const& chunk : chunks) bytes += chunk.size();
    WireSize const size = dispatch_wire_size(job.terms, stream.experts, stream.tokens, slot_bytes);
    EXPECT_EQ(size.bytes, static_cast<std::int64_t>(bytes));
    EXPECT_EQ(size.writes, static_cast<std::int64_t>(chunks.size() + 1));
    EXPECT_EQ(size.rows, static_cast<std::int64_t>(job.expected(0, stream.node).size()));
  }
}

TEST(WireSize, OfACombine) {
  std::vector<std::uint8_t> const weights{1, 2, 3};
  CombineStream const stream{.row_bytes = 64, .tokens = 3, .weights = weights};
  // Header 32, weights 24, so rows begin at 64.
  EXPECT_EQ(combine_wire_size(stream, default_chunk_bytes).bytes, 64 + 3 * 64);
  EXPECT_EQ(combine_wire_size(stream, 64 + 64).writes, 3);
  EXPECT_THROW((void)combine_wire_size(stream, 64 + 63), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
