#include "layout/scale_out/placed_tokens.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard::scale_out {

namespace {

void append_ends(std::vector<std::size_t>& ends, std::size_t before, std::vector<std::size_t> const& more) {
  for (std::size_t const end : more) ends.push_back(before + end);
}

}  // namespace

void PlacedTokens::reserve(std::size_t tokens, std::size_t rows, std::size_t slots) {
  rows_end_.reserve(tokens);
  slots_end_.reserve(tokens);
  rows_.reserve(rows);
  slots_.reserve(slots);
}

void PlacedTokens::append(PlacedTokens const& other) {
  append_ends(rows_end_, rows_.size(), other.rows_end_);
  append_ends(slots_end_, slots_.size(), other.slots_end_);
  rows_.insert(rows_.end(), other.rows_.begin(), other.rows_.end());
  slots_.insert(slots_.end(), other.slots_.begin(), other.slots_.end());
}

void append_in_order(std::vector<PlacedPiece>& pieces, int source, PlacedTokens& to) {
  std::ranges::sort(pieces, {}, &PlacedPiece::first);
  for (PlacedPiece const& piece : pieces) {
    require(piece.first == to.size(), "rank {}: first token of a chunk: expected {}, seen {}", source, to.size(),
            piece.first);
    to.append(piece.placed);
  }
}

}  // namespace switchyard::scale_out
