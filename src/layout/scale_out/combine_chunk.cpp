#include "layout/scale_out/combine_chunk.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard::scale_out {

namespace {

constexpr std::uint32_t combine_magic = 0x1043'5753;  // "SWC" and a kind, little-endian

}  // namespace

ChunkFormat combine_format(CombineStream const& stream) {
  require(stream.row_bytes <= max_chunk_bytes, "row: expected at most {} bytes, seen {}", max_chunk_bytes,
          stream.row_bytes);
  require(stream.weights.empty() || stream.weights.size() == stream.tokens,
          "weights of a combine: expected those of {} tokens, seen {}", stream.tokens, stream.weights.size());
  return {.row_bytes = stream.row_bytes, .weight_bytes = stream.weights.empty() ? 0 : sizeof(float)};
}

std::size_t CombineWriter::begin(std::span<std::byte> slot) {
  require(!done() && next_ == end_, "chunk: expected one that is full, and tokens that are left; seen {} rows left",
          end_ - next_);
  std::size_t const room = std::min(slot.size(), max_chunk_bytes);
  ChunkFill const fill = fill_chunk(
      format_, [this](std::size_t token) { return stream_.weights_of(token); }, end_, stream_.tokens, room);
  if (fill.tokens == 0) refuse_small_slot(format_, stream_.weights_of(end_), room);
  first_ = end_;
  end_ += fill.tokens;
  chunk_ = slot.data();
  parts_ = chunk_parts(format_, fill.tokens, fill.slots);
  next_weight_ = chunk_ + parts_.weights;
  store(chunk_, ChunkHeader{.magic = combine_magic,
                            .bytes = static_cast<std::uint32_t>(parts_.bytes),
                            .epoch = stream_.epoch,
                            .first = static_cast<std::uint32_t>(first_),
                            .tokens = static_cast<std::uint32_t>(fill.tokens),
                            .slots = static_cast<std::uint32_t>(fill.slots)});
  std::fill(chunk_ + parts_.masks, chunk_ + parts_.rows, std::byte{});  // equal calls send equal bytes
  return parts_.bytes;
}

std::optional<CombineWriter::Row> CombineWriter::next_row() noexcept {
  if (next_ == end_) return std::nullopt;
  std::span<std::byte> const weights(next_weight_, stream_.weights_of(next_) * format_.weight_bytes);
  next_weight_ += weights.size();
  std::byte* const x = chunk_ + parts_.rows + (next_ - first_) * format_.row_bytes;
  return Row{.token = static_cast<std::uint32_t>(next_++), .x = x, .weights = weights};
}

void CombineReader::read(Bytes chunk, int rank) {
  rows_.clear();
  ChunkHeader const header =
      read_header(chunk, combine_magic, format_, {.rank = rank, .epoch = stream_.epoch, .tokens = stream_.tokens});
  std::size_t slots = 0;
  for (std::size_t i = 0; i < header.tokens; ++i) slots += stream_.weights_of(header.first + i);
  require(header.slots == slots, "rank {}: chunk: weights: expected {}, seen {}", rank, slots, header.slots);
  first_ = header.first;
  ChunkParts const parts = chunk_parts(format_, header.tokens, header.slots);
  Bytes weights = chunk.subspan(parts.weights, slots * format_.weight_bytes);
  for (std::size_t i = 0; i < header.tokens; ++i) {
    std::size_t const bytes = stream_.weights_of(first_ + i) * format_.weight_bytes;
    rows_.push_back({.x = chunk.data() + parts.rows + i * format_.row_bytes, .weights = weights.first(bytes)});
    weights = weights.subspan(bytes);
  }
}

}  // namespace switchyard::scale_out
