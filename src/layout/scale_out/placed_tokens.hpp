// What a rank has placed on its node for one rank of another node, token by token: a combine sums these rows, and a
// cached dispatch fills them again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/node_tokens.hpp"

namespace switchyard::scale_out {

struct PlacedRow {
  std::int32_t row = 0;  // of the local rank's result
  std::int16_t local_rank = 0;
  std::int16_t slot = -1;  // expanded: the top-k slot; flat: -1
};

// A top-k slot whose expert the node has.
struct PlacedSlot {
  std::int16_t slot = 0;
  std::int16_t local_rank = 0;
};

class PlacedTokens {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return rows_end_.size(); }
  // In the order in which a sum adds them: by slot, where a row that stands for several comes at the last of them;
  // by rank without slots.
  [[nodiscard]] std::span<PlacedRow const> rows_of(std::size_t token) const noexcept {
    return of(rows_, rows_end_, token);
  }
  // By slot; none when routed by rank.
  [[nodiscard]] std::span<PlacedSlot const> slots_of(std::size_t token) const noexcept {
    return of(slots_, slots_end_, token);
  }

  // Adds a token behind those that are there. `first_row_of(row)`: the row of the local rank's result at which the
  // stream of that row begins.
  template <typename FirstRowOf>
  void add(ChunkToken const& token, OutputLayout layout, FirstRowOf const& first_row_of) {
    if (layout == OutputLayout::expanded || token.slots.empty()) {
      for (ChunkRow const& row : token.rows) add_row(token, row, first_row_of(row));
    } else {
      for (std::size_t i = 0; i < token.slots.size(); ++i) add_last_of(token, i, first_row_of);
    }
    for (ChunkSlot const& slot : token.slots) {
      slots_.push_back(
          {.slot = static_cast<std::int16_t>(slot.slot), .local_rank = static_cast<std::int16_t>(slot.local_rank)});
    }
    rows_end_.push_back(rows_.size());
    slots_end_.push_back(slots_.size());
  }
  void append(PlacedTokens const& other);
  // Takes room for so many in all, so that adding them takes no more memory.
  void reserve(std::size_t tokens, std::size_t rows, std::size_t slots);

 private:
  template <typename Item>
  static std::span<Item const> of(std::vector<Item> const& items, std::vector<std::size_t> const& ends,
                                  std::size_t token) noexcept {
    std::size_t const begin = token == 0 ? 0 : ends[token - 1];
    return std::span(items).subspan(begin, ends[token] - begin);
  }

  void add_row(ChunkToken const& token, ChunkRow const& row, std::int64_t first) {
    std::int16_t const slot = row.slot < 0
                                  ? std::int16_t{-1}
                                  : static_cast<std::int16_t>(token.slots[static_cast<std::size_t>(row.slot)].slot);
    rows_.push_back({.row = static_cast<std::int32_t>(first + row.row),
                     .local_rank = static_cast<std::int16_t>(row.local_rank),
                     .slot = slot});
  }

  // Adds the row that slot `i` stands for, unless a later slot stands for it, too.
  template <typename FirstRowOf>
  void add_last_of(ChunkToken const& token, std::size_t i, FirstRowOf const& first_row_of) {
    int const rank = token.slots[i].local_rank;
    for (ChunkSlot const& later : token.slots.subspan(i + 1))
      if (later.local_rank == rank) return;
    for (ChunkRow const& row : token.rows)
      if (row.local_rank == rank) add_row(token, row, first_row_of(row));
  }

  std::vector<std::size_t> rows_end_;   // by token, in rows_
  std::vector<std::size_t> slots_end_;  // by token, in slots_
  std::vector<PlacedRow> rows_;
  std::vector<PlacedSlot> slots_;
};

// What a chunk has brought. `first`: number of its first token among the source's tokens for the node.
struct PlacedPiece {
  std::uint32_t first = 0;
  PlacedTokens placed{};
};
// Appends pieces that came in any order in that of the tokens. Throws InvalidArgument, naming the source, when they
// leave a gap.
void append_in_order(std::vector<PlacedPiece>& pieces, int source, PlacedTokens& to);

// What came from one rank of another node in a dispatch.
struct ServedTokens {
  NodeCounts counts{};
  PlacedTokens placed{};
};

}  // namespace switchyard::scale_out
