// Chunks that came broken: each is refused, or names only ranks, experts, slots and rows that there are, and bytes
// within it.
#include <gtest/gtest.h>

#include "layout/scale_out/chunk_reader.hpp"
#include "support/bad_bytes.hpp"
#include "support/chunks.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

// Some stream of a job by chance that has tokens, with one of its chunks.
struct Sample {
  explicit Sample(std::uint64_t seed) : job(random_node_job(seed)) {}

  template <typename Visit>
  void visit(Random& random, Visit const& visit) const {
    for (int source = 0; source < job.num_ranks(); ++source) {
      int const node = random.between(0, job.topology().num_nodes() - 1);
      StreamOfJob const stream(job, source, node);
      if (stream.tokens.size() == 0) continue;
      auto const chunks = stream.write(least_dispatch_chunk(job.terms, stream.experts) + 600);
      visit(stream, chunks[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(chunks.size())))]);
      return;
    }
  }

  NodeJob job;
};

// Reads every byte that a row has.
void expect_within(Bytes chunk, std::byte const* data, std::size_t bytes) {
  EXPECT_GE(data, chunk.data());
  EXPECT_LE(data + bytes, chunk.data() + chunk.size());
}

void expect_in_range(StreamOfJob const& stream, ChunkToken const& token, Bytes chunk) {
  DispatchTerms const& terms = stream.job.terms;
  bool const expanded = terms.layout == OutputLayout::expanded;
  EXPECT_TRUE(token.token >= 0 && token.token < terms.max_tokens);
  for (ChunkSlot const& slot : token.slots) {
    EXPECT_TRUE(slot.slot >= 0 && slot.slot < terms.top_k);
    EXPECT_TRUE(slot.expert >= 0 && slot.expert < stream.experts.count());
    EXPECT_TRUE(slot.local_rank >= 0 && slot.local_rank < stream.experts.num_ranks());
    EXPECT_EQ(stream.experts.first(slot.local_rank) + slot.local_expert, slot.expert);
  }
  for (ChunkRow const& row : token.rows) {
    ASSERT_TRUE(row.local_rank >= 0 && row.local_rank < stream.experts.num_ranks());
    ASSERT_TRUE(!expanded || (row.slot >= 0 && row.slot < static_cast<int>(token.slots.size())));
    auto const& counts = stream.tokens.counts;
    EXPECT_LT(
        row.row,
        expanded ? counts.slots.at(static_cast<std::size_t>(token.slots[static_cast<std::size_t>(row.slot)].expert))
                 : counts.rows.at(static_cast<std::size_t>(row.local_rank)));
  }
  expect_within(chunk, token.x, terms.row_bytes);
  expect_within(chunk, token.scales, terms.scale_bytes);
}

// Returns whether it was read.
bool read(StreamOfJob const& stream, Bytes chunk) {
  ChunkReader reader(stream.job.terms, stream.experts);
  try {
    reader.read(chunk, {.rank = stream.source, .epoch = chunk_epoch, .counts = stream.tokens.counts});
  } catch (InvalidArgument const&) {
    EXPECT_EQ(reader.size(), 0U);
    return false;
  }
  EXPECT_GT(reader.size(), 0U);
  EXPECT_LE(reader.first() + reader.size(), stream.tokens.size());
  for (std::size_t i = 0; i < reader.size(); ++i) expect_in_range(stream, reader.token(i), chunk);
  return true;
}

TEST(BadChunk, EveryTruncationIsRefused) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random random(mix(seed, std::uint64_t{6}));
    Sample(seed).visit(random, [](StreamOfJob const& stream, ChunkBytes const& chunk) {
      EXPECT_TRUE(read(stream, chunk));
      for_each_truncation(chunk, [&](Bytes bytes) { EXPECT_FALSE(read(stream, bytes)) << bytes.size(); });
    });
  }
}

TEST(BadChunk, FlippedBitsNameNothingThatIsNotThere) {
  int refused = 0;
  int taken = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random random(mix(seed, std::uint64_t{7}));
    Sample(seed).visit(random, [&](StreamOfJob const& stream, ChunkBytes const& chunk) {
      for (int i = 0; i < 300; ++i)
        with_flipped_bits(chunk, random, [&](Bytes bytes) { ++(read(stream, bytes) ? taken : refused); });
    });
  }
  // Most changes are in rows and weights, or in headers: both kinds must have come up.
  EXPECT_GT(refused, 1000);
  EXPECT_GT(taken, 1000);
}

// A chunk that is right for another stream of the same call.
TEST(BadChunk, ChunksOfOtherStreamsNameNothingThatIsNotThere) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    if (job.num_ranks() > 20) continue;
    StreamOfJob const reading(job, 0, 0);
    for (int source = 0; source < job.num_ranks(); ++source) {
      StreamOfJob const stream(job, source, job.topology().num_nodes() - 1);
      for (ChunkBytes const& chunk : stream.write(4000 + least_dispatch_chunk(job.terms, stream.experts)))
        read(reading, chunk);
    }
  }
}

}  // namespace
}  // namespace switchyard::test
