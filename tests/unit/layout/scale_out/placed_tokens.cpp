// Where a rank has placed the tokens of ranks that it serves, against lists made from ids alone: which rows each
// token has, and in the order in which a sum adds them.
#include "layout/scale_out/placed_tokens.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "support/chunks.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

// A row of a token, as the definition has it: local rank, row of that rank's result, slot.
struct Row {
  int local_rank;
  std::int64_t row;
  int slot;

  friend bool operator==(Row const&, Row const&) = default;
  friend std::ostream& operator<<(std::ostream& out, Row const& row) {
    return out << "{rank " << row.local_rank << ", row " << row.row << ", slot " << row.slot << "}";
  }
};

// First rows of streams, by chance but the same for all who ask: those of ranks, and those of experts.
std::int64_t first_row(NodeJob const& job, int local_rank, int expert) {
  return static_cast<std::int64_t>(mix(job.seed, std::uint64_t{4}, local_rank, expert + 1) % 100'000);
}

int local_rank_of(NodeJob const& job, int node, int rank) {
  auto const ranks = job.ranks_of(node);
  return static_cast<int>(std::ranges::find(ranks, rank) - ranks.begin());
}

template <typename T>
std::int64_t index_of(std::vector<T> const& list, T const& value) {
  return std::ranges::find(list, value) - list.begin();
}

// The ranks of a node to which a token goes, by the last slot that names each; routed by rank, in their order.
std::vector<int> ranks_in_order(NodeJob const& job, ExpectedToken const& token) {
  std::vector<int> ranks;
  for (NodeSlot const& slot : token.slots) {
    int const rank = job.by_rank() ? slot.target : job.owner(slot.target);
    std::erase(ranks, rank);
    ranks.push_back(rank);
  }
  return ranks;
}

std::vector<Row> expected_rows(NodeJob const& job, int source, int node, ExpectedToken const& token) {
  std::vector<Row> rows;
  if (job.terms.layout == OutputLayout::expanded) {
    for (NodeSlot const& slot : token.slots) {
      int const local = local_rank_of(job, node, job.owner(slot.target));
      auto const stream = job.expert_rows(source, slot.target);
      rows.push_back({local,
                      first_row(job, local, slot.target) + index_of(stream, std::pair{token.token, slot.slot}),
                      slot.slot});
    }
    return rows;
  }
  for (int const rank : ranks_in_order(job, token)) {
    int const local = local_rank_of(job, node, rank);
    rows.push_back({local, first_row(job, local, -1) + index_of(job.rows(source, rank), token.token), -1});
  }
  return rows;
}

// What was placed for one chunk.
struct Piece {
  std::uint32_t first;
  PlacedTokens tokens;
};

std::vector<Piece> place(StreamOfJob const& stream, std::size_t slot_bytes) {
  NodeJob const& job = stream.job;
  ChunkReader reader(job.terms, stream.experts);
  std::vector<Piece> pieces;
  for (ChunkBytes const& chunk : stream.write(slot_bytes)) {
    reader.read(chunk, {.rank = stream.source, .epoch = chunk_epoch, .counts = stream.tokens.counts});
    Piece& piece = pieces.emplace_back(Piece{.first = reader.first(), .tokens = {}});
    for (std::size_t i = 0; i < reader.size(); ++i) {
      ChunkToken const token = reader.token(i);
      piece.tokens.add(token, job.terms.layout, [&](ChunkRow const& row) {
        if (row.slot < 0) return first_row(job, row.local_rank, -1);
        ChunkSlot const& slot = token.slots[static_cast<std::size_t>(row.slot)];
        int const rank = job.ranks_of(stream.node)[static_cast<std::size_t>(row.local_rank)];
        return first_row(job, row.local_rank, job.experts().first(rank) + slot.local_expert);
      });
    }
  }
  return pieces;
}

void expect_token(StreamOfJob const& stream, ExpectedToken const& token, PlacedTokens const& seen, std::size_t i) {
  NodeJob const& job = stream.job;
  std::vector<Row> rows;
  for (PlacedRow const& row : seen.rows_of(i)) rows.push_back({row.local_rank, row.row, row.slot});
  EXPECT_EQ(rows, expected_rows(job, stream.source, stream.node, token)) << "token " << token.token;
  auto const slots = seen.slots_of(i);
  ASSERT_EQ(slots.size(), job.by_rank() ? 0 : token.slots.size());
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    EXPECT_EQ(slots[slot].slot, token.slots[slot].slot);
    EXPECT_EQ(slots[slot].local_rank, local_rank_of(job, stream.node, job.owner(token.slots[slot].target)));
  }
}

// Chunks come in any order; pieces are put together in that of their tokens.
void check_stream(StreamOfJob const& stream, Random& random) {
  std::size_t const least = least_dispatch_chunk(stream.job.terms, stream.experts);
  auto pieces = place(stream, least + static_cast<std::size_t>(random.below(3000)));
  shuffle(random, pieces);
  std::ranges::sort(pieces, {}, &Piece::first);
  PlacedTokens all;
  for (Piece const& piece : pieces) {
    ASSERT_EQ(piece.first, all.size());
    all.append(piece.tokens);
  }
  auto const expected = stream.job.expected(stream.source, stream.node);
  ASSERT_EQ(all.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) expect_token(stream, expected[i], all, i);
}

TEST(PlacedTokens, AreInTheOrderInWhichASumAddsThem) {
  for (std::uint64_t seed = 0; seed < static_cast<std::uint64_t>(by_scale(15, 150)); ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    Random random(mix(seed, std::uint64_t{22}));
    for (int source = 0; source < std::min(job.num_ranks(), 6); ++source)
      for (int node = 0; node < job.topology().num_nodes(); ++node)
        check_stream(StreamOfJob(job, source, node), random);
    if (HasFailure()) return;
  }
}

// By hand: slots 0..4 name ranks 1, 0, 1, 2, 0. Rank 1 is last named in slot 2, rank 2 in 3, rank 0 in 4.
TEST(PlacedTokens, ARowThatStandsForSeveralSlotsComesAtTheLast) {
  std::vector<ChunkSlot> const slots{{.slot = 0, .local_rank = 1},
                                     {.slot = 1, .local_rank = 0},
                                     {.slot = 2, .local_rank = 1},
                                     {.slot = 3, .local_rank = 2},
                                     {.slot = 4, .local_rank = 0}};
  std::vector<ChunkRow> const rows{
      {.local_rank = 0, .row = 7}, {.local_rank = 1, .row = 8}, {.local_rank = 2, .row = 9}};
  PlacedTokens placed;
  placed.add({.token = 3, .slots = slots, .rows = rows}, OutputLayout::flat,
             [](ChunkRow const& row) { return std::int64_t{100} * (row.local_rank + 1); });
  ASSERT_EQ(placed.size(), 1U);
  std::vector<std::pair<int, int>> seen;
  for (PlacedRow const& row : placed.rows_of(0)) seen.emplace_back(row.local_rank, row.row);
  EXPECT_EQ(seen, (std::vector<std::pair<int, int>>{{1, 208}, {2, 309}, {0, 107}}));
}

TEST(PlacedTokens, AppendingToNoneAndNothingToSome) {
  ChunkRow const row{.local_rank = 1, .row = 2};
  PlacedTokens one;
  one.add({.token = 0, .rows = std::span(&row, 1)}, OutputLayout::flat,
          [](ChunkRow const&) { return std::int64_t{5}; });
  PlacedTokens all;
  all.append({});
  EXPECT_EQ(all.size(), 0U);
  all.append(one);
  all.append({});
  all.append(one);
  ASSERT_EQ(all.size(), 2U);
  for (std::size_t token = 0; token < 2; ++token) {
    ASSERT_EQ(all.rows_of(token).size(), 1U);
    EXPECT_EQ(all.rows_of(token)[0].row, 7);
    EXPECT_EQ(all.rows_of(token)[0].local_rank, 1);
    EXPECT_EQ(all.rows_of(token)[0].slot, -1);
    EXPECT_TRUE(all.slots_of(token).empty());
  }
}

}  // namespace
}  // namespace switchyard::test
