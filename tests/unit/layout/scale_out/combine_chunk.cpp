// The way back: rows and weights of every token come once, in whatever order chunks are read; broken chunks give
// nothing that lies outside of them.
#include "layout/scale_out/combine_chunk.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/bad_bytes.hpp"
#include "support/chunks.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

constexpr int from = 21;

// What comes back for one token, by chance.
struct Returned {
  ChunkBytes x;
  ChunkBytes weights;
};

struct CombineJob {
  explicit CombineJob(std::uint64_t seed) {
    Random random(mix(seed, std::uint64_t{9}));
    auto const row_bytes = static_cast<std::size_t>(random.between(1, 300));
    int const tokens = random.between(0, 60);
    bool const with_weights = random.chance(60);
    for (int token = 0; token < tokens; ++token) {
      if (with_weights) weights.push_back(static_cast<std::uint8_t>(random.between(1, 64)));
      returned.push_back({bytes(random, row_bytes), bytes(random, with_weights ? 4U * weights.back() : 0)});
    }
    stream = {.row_bytes = row_bytes,
              .tokens = static_cast<std::uint32_t>(tokens),
              .weights = weights,
              .epoch = chunk_epoch};
    slot_bytes = chunk_parts(combine_format(stream), 1, 64).bytes;
    if (random.chance(60)) slot_bytes += static_cast<std::size_t>(random.below(4000));
  }
  CombineJob(CombineJob const&) = delete;
  CombineJob& operator=(CombineJob const&) = delete;

  static ChunkBytes bytes(Random& random, std::size_t count) {
    ChunkBytes bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.bits());
    return bytes;
  }

  [[nodiscard]] std::vector<ChunkBytes> write(std::byte fill = std::byte{0xee}) const {
    CombineWriter writer(stream);
    std::vector<ChunkBytes> chunks;
    while (!writer.done()) {
      ChunkBytes chunk(slot_bytes, fill);
      std::size_t const size = writer.begin(chunk);
      while (auto const row = writer.next_row()) {
        Returned const& of = returned.at(row->token);
        std::ranges::copy(of.x, row->x);
        EXPECT_EQ(row->weights.size(), of.weights.size());
        std::ranges::copy(of.weights, row->weights.begin());
      }
      chunk.resize(size);
      chunks.push_back(std::move(chunk));
    }
    return chunks;
  }

  std::vector<std::uint8_t> weights;
  std::vector<Returned> returned;
  CombineStream stream;
  std::size_t slot_bytes = 0;
};

TEST(CombineChunk, EveryRowComesBackOnceInAnyOrderOfChunks) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    CombineJob const job(seed);
    Random random(mix(seed, std::uint64_t{10}));
    auto chunks = job.write();
    shuffle(random, chunks);
    std::vector<int> seen(job.returned.size());
    CombineReader reader(job.stream);
    for (ChunkBytes const& chunk : chunks) {
      reader.read(chunk, from);
      for (std::size_t i = 0; i < reader.size(); ++i) {
        Returned const& expected = job.returned.at(reader.first() + i);
        ++seen[reader.first() + i];
        EXPECT_TRUE(std::ranges::equal(std::span(reader.row(i).x, job.stream.row_bytes), expected.x));
        EXPECT_TRUE(std::ranges::equal(reader.row(i).weights, expected.weights));
      }
    }
    EXPECT_THAT(seen, testing::Each(1));
    EXPECT_EQ(job.write(std::byte{0x00}), job.write(std::byte{0xff}));
  }
}

// Returns whether it was read.
bool read(CombineJob const& job, Bytes chunk) {
  CombineReader reader(job.stream);
  try {
    reader.read(chunk, from);
  } catch (InvalidArgument const& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("rank 21: chunk: "));
    EXPECT_EQ(reader.size(), 0U);
    return false;
  }
  EXPECT_LE(reader.first() + reader.size(), job.returned.size());
  for (std::size_t i = 0; i < reader.size(); ++i) {
    auto const& row = reader.row(i);
    EXPECT_TRUE(row.x >= chunk.data() && row.x + job.stream.row_bytes <= chunk.data() + chunk.size());
    EXPECT_EQ(row.weights.size(), job.returned[reader.first() + i].weights.size());
    EXPECT_TRUE(row.weights.data() >= chunk.data() &&
                row.weights.data() + row.weights.size() <= chunk.data() + chunk.size());
  }
  return true;
}

TEST(CombineChunk, TruncatedOrChanged) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    CombineJob const job(seed);
    if (job.returned.empty()) continue;
    Random random(mix(seed, std::uint64_t{11}));
    ChunkBytes const chunk = job.write().back();
    EXPECT_TRUE(read(job, chunk));
    for_each_truncation(chunk, [&](Bytes bytes) { EXPECT_FALSE(read(job, bytes)); });
    for (int i = 0; i < 200; ++i) with_flipped_bits(chunk, random, [&](Bytes bytes) { read(job, bytes); });
  }
}

TEST(CombineChunk, OtherWeightsThanTheTokensHaveAreRefused) {
  std::vector<std::uint8_t> const weights{1, 2, 3};
  CombineStream const stream{.row_bytes = 8, .tokens = 3, .weights = weights, .epoch = chunk_epoch};
  ChunkBytes chunk(200);
  CombineWriter(stream).begin(chunk);
  auto header = load<ChunkHeader>(chunk.data());
  ++header.slots;  // in front of the rows there is room for 8
  store(chunk.data(), header);
  CombineReader reader(stream);
  try {
    reader.read(chunk, from);
    FAIL() << "expected InvalidArgument";
  } catch (InvalidArgument const& error) {
    EXPECT_STREQ(error.what(), "rank 21: chunk: weights: expected 6, seen 7");
  }
}

TEST(CombineChunk, ARowThatDoesNotFitIsRefused) {
  CombineStream const stream{.row_bytes = 1000, .tokens = 1};
  ChunkBytes slot(1000);
  CombineWriter writer(stream);
  EXPECT_THROW(writer.begin(slot), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
