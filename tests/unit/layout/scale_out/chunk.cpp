// Chunks of a dispatch against the definition of a routing: every token of every stream arrives once, at the rows
// that it would have if the job were one node, in whatever order chunks are read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "layout/placement.hpp"
#include "layout/routes.hpp"
#include "layout/scale_out/chunk_reader.hpp"
#include "support/chunks.hpp"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

auto const num_jobs = static_cast<std::uint64_t>(by_scale(15, 150));

// A ring slot in which one token fits, or some, or all.
std::size_t random_slot_bytes(Random& random, StreamOfJob const& stream) {
  std::size_t const least = least_dispatch_chunk(stream.job.terms, stream.experts);
  return random.chance(30) ? least : least + static_cast<std::size_t>(random.below(4000));
}

template <typename Visit>
void for_each_stream(NodeJob const& job, Visit const& visit) {
  for (int source = 0; source < job.num_ranks(); ++source) {
    // A job of large nodes has thousands of streams; some of its sources will do.
    if (job.num_ranks() > 12 && source % 29 != static_cast<int>(job.seed % 29)) continue;
    for (int node = 0; node < job.topology().num_nodes(); ++node) visit(StreamOfJob(job, source, node));
  }
}

TEST(NodeTokens, AreThoseOfTheDefinition) {
  for (std::uint64_t seed = 0; seed < num_jobs; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    for_each_stream(job, [&](StreamOfJob const& stream) {
      auto const expected = job.expected(stream.source, stream.node);
      ASSERT_EQ(stream.tokens.size(), expected.size());
      EXPECT_EQ(stream.tokens.counts.tokens, expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(stream.tokens.tokens[i], expected[i].token);
      std::vector<std::uint32_t> rows;
      std::vector<std::uint32_t> slots;
      for (int const rank : job.ranks_of(stream.node)) {
        rows.push_back(static_cast<std::uint32_t>(job.rows(stream.source, rank).size()));
        for (int expert = 0; expert < job.num_experts; ++expert) {
          if (job.owner(expert) == rank)
            slots.push_back(static_cast<std::uint32_t>(job.expert_rows(stream.source, expert).size()));
        }
      }
      EXPECT_EQ(stream.tokens.counts.rows, rows);
      EXPECT_EQ(stream.tokens.counts.slots, slots);
    });
  }
}

void expect_slots(StreamOfJob const& stream, ChunkToken const& seen, ExpectedToken const& expected) {
  NodeJob const& job = stream.job;
  ASSERT_EQ(seen.slots.size(), job.by_rank() ? 0 : expected.slots.size());
  for (std::size_t i = 0; i < seen.slots.size(); ++i) {
    ChunkSlot const& slot = seen.slots[i];
    int const rank = job.ranks_of(stream.node).at(static_cast<std::size_t>(slot.local_rank));
    EXPECT_EQ(slot.slot, expected.slots[i].slot);
    EXPECT_EQ(rank, job.owner(expected.slots[i].target));
    EXPECT_EQ(job.experts().first(rank) + slot.local_expert, expected.slots[i].target);
    int const at = expected.token * job.terms.top_k + slot.slot;
    float const weight = job.weights[static_cast<std::size_t>(stream.source)][static_cast<std::size_t>(at)];
    EXPECT_EQ(slot.weight, job.terms.weights ? weight : 0.0F);
  }
}

// The rows of a stream by the definition: of each local rank, or of each expert.
struct StreamRows {
  explicit StreamRows(StreamOfJob const& of) : stream(of), tokens(of.job.expected(of.source, of.node)) {
    for (int const rank : of.job.ranks_of(of.node)) by_rank.push_back(of.job.rows(of.source, rank));
  }

  void expect(ChunkToken const& seen, ExpectedToken const& expected) const {
    bool const expanded = stream.job.terms.layout == OutputLayout::expanded;
    auto const ranks = std::ranges::count_if(
        by_rank, [&](auto const& rows) { return std::ranges::binary_search(rows, seen.token); });
    ASSERT_EQ(seen.rows.size(), expanded ? expected.slots.size() : static_cast<std::size_t>(ranks));
    for (ChunkRow const& row : seen.rows) {
      if (!expanded) {
        EXPECT_EQ(row.slot, -1);
        EXPECT_EQ(by_rank.at(static_cast<std::size_t>(row.local_rank)).at(row.row), seen.token);
        continue;
      }
      NodeSlot const& slot = expected.slots.at(static_cast<std::size_t>(row.slot));
      EXPECT_EQ(stream.job.ranks_of(stream.node).at(static_cast<std::size_t>(row.local_rank)),
                stream.job.owner(slot.target));
      EXPECT_EQ(stream.job.expert_rows(stream.source, slot.target).at(row.row), std::pair(seen.token, slot.slot));
    }
  }

  StreamOfJob const& stream;
  std::vector<ExpectedToken> tokens;
  std::vector<std::vector<std::int32_t>> by_rank;  // by local rank
};

void expect_token(StreamRows const& rows, ChunkToken const& seen, ExpectedToken const& expected) {
  NodeJob const& job = rows.stream.job;
  int const source = rows.stream.source;
  ASSERT_EQ(seen.token, expected.token);
  expect_slots(rows.stream, seen, expected);
  rows.expect(seen, expected);
  EXPECT_TRUE(std::ranges::equal(job.row_of(source, seen.token), std::span(seen.x, job.terms.row_bytes)));
  EXPECT_TRUE(std::ranges::equal(job.scales_of(source, seen.token), std::span(seen.scales, job.terms.scale_bytes)));
}

void expect_stream(StreamOfJob const& stream, Random& random) {
  std::vector<ChunkBytes> chunks = stream.write(random_slot_bytes(random, stream));
  shuffle(random, chunks);
  StreamRows const rows(stream);
  std::vector<int> seen(rows.tokens.size());
  ChunkReader reader(stream.job.terms, stream.experts);
  for (ChunkBytes const& chunk : chunks) {
    reader.read(chunk, {.rank = stream.source, .epoch = chunk_epoch, .counts = stream.tokens.counts});
    for (std::size_t i = 0; i < reader.size(); ++i) {
      ASSERT_LT(reader.first() + i, seen.size());
      ++seen[reader.first() + i];
      expect_token(rows, reader.token(i), rows.tokens[reader.first() + i]);
    }
  }
  EXPECT_THAT(seen, testing::Each(1));
}

TEST(Chunk, EveryTokenArrivesOnceInAnyOrderOfChunks) {
  for (std::uint64_t seed = 0; seed < num_jobs; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    Random random(mix(seed, std::uint64_t{3}));
    for_each_stream(job, [&](StreamOfJob const& stream) { expect_stream(stream, random); });
  }
}

// (receiver, row of its result) -> (source, token, slot; -1 in the flat layout).
using Result = std::map<std::pair<int, std::int64_t>, std::tuple<int, std::int32_t, int>>;

// Where the library's own arithmetic for one node puts the rows of one receiver, if all ranks were one node.
struct OneNode {
  explicit OneNode(NodeJob const& job) {
    for (int source = 0; source < job.num_ranks(); ++source) {
      tables.push_back(job.by_rank() ? masked_routes(job.in_rank_of(source))
                       : job.terms.layout == OutputLayout::expanded
                           ? expanded_routes(job.ids_of(source), job.experts(), job.num_ranks())
                           : flat_routes(job.ids_of(source), job.experts(), job.num_ranks()));
    }
    for (int rank = 0; rank < job.num_ranks(); ++rank) placements.push_back(place(job, rank));
  }

  [[nodiscard]] Placement place(NodeJob const& job, int rank) const {
    std::vector<std::int64_t> counts;
    for (RouteTable const& table : tables) {
      counts.push_back(table.rows_per_rank[static_cast<std::size_t>(rank)]);
      for (int i = 0; i < job.experts().count(rank); ++i) {
        int const expert = job.experts().first(rank) + i;
        counts.push_back(job.by_rank() ? 0 : table.slots_per_expert[static_cast<std::size_t>(expert)]);
      }
    }
    return place_counts(job, rank, counts);
  }

  static Placement place_counts(NodeJob const& job, int rank, std::vector<std::int64_t> const& counts) {
    return place_rows({.layout = job.terms.layout,
                       .num_ranks = job.num_ranks(),
                       .local_experts = job.experts().count(rank),
                       .expert_alignment = 4,
                       .counts = counts},
                      10000);
  }

  [[nodiscard]] Result result(NodeJob const& job) const {
    Result result;
    for (int source = 0; source < job.num_ranks(); ++source) {
      RouteTable const& table = tables[static_cast<std::size_t>(source)];
      for (std::int32_t token = 0; token < table.num_tokens(); ++token) {
        for (Route const& route : table.of(token)) {
          int const stream = route.expert < 0 ? 0 : 1 + route.expert - job.experts().first(route.rank);
          result[{route.rank, start(job, route.rank, source, stream) + route.row}] = {source, token, route.slot};
        }
      }
    }
    return result;
  }

  [[nodiscard]] std::int64_t start(NodeJob const& job, int rank, int source, int stream) const {
    int const at = source * (1 + job.experts().count(rank)) + stream;
    return placements[static_cast<std::size_t>(rank)].starts[static_cast<std::size_t>(at)];
  }

  std::vector<RouteTable> tables;
  std::vector<Placement> placements;
};

// The counts that a receiver gathers from the notify messages of all sources.
std::vector<std::int64_t> counts_for(NodeJob const& job, int rank) {
  Topology const topology = job.topology();
  std::vector<std::int64_t> counts;
  for (int source = 0; source < job.num_ranks(); ++source) {
    StreamOfJob const stream(job, source, topology.node_of(rank));
    int const local = topology.local_rank_of(rank);
    counts.push_back(stream.tokens.counts.rows[static_cast<std::size_t>(local)]);
    for (int i = 0; i < job.experts().count(rank); ++i) {
      int const expert = stream.experts.first(local) + i;
      counts.push_back(stream.tokens.counts.slots[static_cast<std::size_t>(expert)]);
    }
  }
  return counts;
}

void add_stream(StreamOfJob const& stream, OneNode const& places, Random& random, Result& result) {
  std::vector<ChunkBytes> chunks = stream.write(random_slot_bytes(random, stream));
  shuffle(random, chunks);
  ChunkReader reader(stream.job.terms, stream.experts);
  for (ChunkBytes const& chunk : chunks) {
    reader.read(chunk, {.rank = stream.source, .epoch = chunk_epoch, .counts = stream.tokens.counts});
    for (std::size_t i = 0; i < reader.size(); ++i) {
      ChunkToken const token = reader.token(i);
      for (ChunkRow const& row : token.rows) {
        int const rank = stream.job.ranks_of(stream.node)[static_cast<std::size_t>(row.local_rank)];
        bool const flat = row.slot < 0;
        ChunkSlot const slot = flat ? ChunkSlot{.slot = -1} : token.slots[static_cast<std::size_t>(row.slot)];
        std::int64_t const start = places.start(stream.job, rank, stream.source, flat ? 0 : 1 + slot.local_expert);
        auto const [at, is_new] = result.insert({{rank, start + row.row}, {stream.source, token.token, slot.slot}});
        EXPECT_TRUE(is_new) << "rank " << rank << " row " << start + row.row << " is written twice";
      }
    }
  }
}

TEST(Chunk, PlacesRowsAsOneNodeDoes) {
  for (std::uint64_t seed = 0; seed < num_jobs; ++seed) {
    NodeJob const job = random_node_job(mix(seed, std::uint64_t{4}));
    if (job.num_ranks() > 20) continue;  // that takes long, and the other tests have them
    SCOPED_TRACE(seed);
    Random random(mix(seed, std::uint64_t{5}));
    OneNode const one(job);
    for (int rank = 0; rank < job.num_ranks(); ++rank) {
      Placement const gathered = OneNode::place_counts(job, rank, counts_for(job, rank));
      EXPECT_EQ(gathered.starts, one.placements[static_cast<std::size_t>(rank)].starts);
    }
    Result result;
    for (int source = 0; source < job.num_ranks(); ++source) {
      for (int node = 0; node < job.topology().num_nodes(); ++node)
        add_stream(StreamOfJob(job, source, node), one, random, result);
    }
    EXPECT_EQ(result, one.result(job));
  }
}

TEST(Chunk, EqualCallsSendEqualBytes) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    for_each_stream(job, [&](StreamOfJob const& stream) {
      EXPECT_EQ(stream.write(3000 + least_dispatch_chunk(job.terms, stream.experts), std::byte{0x00}),
                stream.write(3000 + least_dispatch_chunk(job.terms, stream.experts), std::byte{0xff}));
    });
  }
}

// A stream of some tokens, flat, with all that can travel.
NodeJob small_job() {
  NodeJob job = random_node_job(1);
  job.node_by_rank = {0, 1, 1};
  job.num_experts = 6;
  job.terms = {.top_k = 2, .weights = true, .row_bytes = 100, .scale_bytes = 8, .max_tokens = 4};
  job.tokens = {4, 0, 0};
  job.ids = {{2, 5, 0, 3, 4, 4, 1, 0}, {}, {}};
  job.weights = {{1, 2, 3, 4, 5, 6, 7, 8}, {}, {}};
  job.in_rank = {{}, {}, {}};
  return job;
}

TEST(Chunk, OneTokenInEachOfTheSmallestSlots) {
  NodeJob const job = small_job();
  StreamOfJob const stream(job, 0, 1);
  EXPECT_EQ(stream.write(least_dispatch_chunk(job.terms, stream.experts)).size(), 3U);
  EXPECT_EQ(stream.write(default_chunk_bytes).size(), 1U);
}

TEST(Chunk, ATokenThatDoesNotFitIsRefused) {
  NodeJob const job = small_job();
  StreamOfJob const stream(job, 0, 1);
  std::size_t const least = least_dispatch_chunk(job.terms, stream.experts);
  try {
    (void)stream.write(least - 1);
    FAIL() << "expected InvalidArgument";
  } catch (InvalidArgument const& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(least)));
    EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(least - 1)));
    EXPECT_THAT(error.what(), testing::HasSubstr("ring slot"));
  }
}

TEST(Chunk, ErrorsNameTheSource) {
  NodeJob const job = small_job();
  StreamOfJob const stream(job, 0, 1);
  ChunkBytes const chunk = stream.write(default_chunk_bytes).front();
  ChunkReader reader(job.terms, stream.experts);
  try {
    reader.read(chunk, {.rank = 31, .epoch = chunk_epoch + 1, .counts = stream.tokens.counts});
    FAIL() << "expected InvalidArgument";
  } catch (InvalidArgument const& error) {
    EXPECT_STREQ(error.what(), "rank 31: chunk: epoch: expected 78, seen 77");
  }
  EXPECT_EQ(reader.size(), 0U);
}

// The error of a chunk with three tokens that came with other bytes, or whose notify said something else.
template <typename Spoil>
std::string error_of(Spoil const& spoil) {
  NodeJob const job = small_job();
  StreamOfJob const stream(job, 0, 1);
  ChunkBytes chunk = stream.write(default_chunk_bytes).front();
  NodeCounts counts = stream.tokens.counts;
  auto header = load<ChunkHeader>(chunk.data());
  chunk.resize(chunk.size() + 100);  // the rest of the ring slot
  spoil(header, chunk.data() + sizeof header, counts);
  store(chunk.data(), header);
  ChunkReader reader(job.terms, stream.experts);
  try {
    reader.read(chunk, {.rank = 31, .epoch = chunk_epoch, .counts = counts});
  } catch (InvalidArgument const& error) {
    return error.what();
  }
  return "";
}

TEST(Chunk, NumbersThatDoNotFitTogetherAreRefused) {
  EXPECT_EQ(error_of([](ChunkHeader&, std::byte*, NodeCounts&) {}), "");
  EXPECT_EQ(error_of([](ChunkHeader& header, std::byte*, NodeCounts&) { ++header.bytes; }),
            "rank 31: chunk: bytes: expected 428 for 3 tokens with 5 slots, seen 429 in a ring slot of 528");
  EXPECT_EQ(error_of([](ChunkHeader&, std::byte* starts, NodeCounts&) { store(starts, std::uint32_t{1}); }),
            "rank 31: chunk: rows before the first token: expected 0, seen 1");
  EXPECT_EQ(error_of([](ChunkHeader&, std::byte*, NodeCounts& counts) { ++counts.rows[0]; }),
            "rank 31: chunk: rows of stream 0: expected 3, seen 2");
  EXPECT_EQ(error_of([](ChunkHeader&, std::byte*, NodeCounts& counts) { --counts.rows[1]; }),
            "rank 31: chunk: row of stream 1: expected 0..0, seen 1");
  EXPECT_EQ(error_of([](ChunkHeader& header, std::byte*, NodeCounts&) { header.first = 1; }),
            "rank 31: chunk: tokens: expected some of 0..2, seen 3 from 1 on");
}

TEST(Chunk, RefusesTermsThatNoCallCanHave) {
  NodeJob const job = small_job();
  NodeExperts const node(job.topology(), job.experts(), 1);
  EXPECT_THROW((void)dispatch_format({.top_k = 65}, node), InvalidArgument);
  EXPECT_THROW((void)dispatch_format({.top_k = -1}, node), InvalidArgument);
  EXPECT_THROW((void)dispatch_format({.layout = OutputLayout::expanded, .top_k = 0}, node), InvalidArgument);
  EXPECT_THROW((void)dispatch_format({.top_k = 0, .weights = true}, node), InvalidArgument);
  std::vector<int> const alone{0};
  EXPECT_THROW(NodeExperts(Topology(alone), ExpertSplit(65537, 1), 0), InvalidArgument);
}

TEST(NodeTokens, RefuseIdsOutOfRange) {
  NodeJob job = small_job();
  job.ids[0][3] = 6;
  EXPECT_THROW((void)job.tokens_by_node(0), InvalidArgument);
  job.ids[0][3] = -2;
  EXPECT_THROW((void)job.tokens_by_node(0), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
