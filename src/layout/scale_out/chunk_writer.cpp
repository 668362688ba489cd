#include "layout/scale_out/chunk_writer.hpp"

#include <algorithm>
#include <bit>

#include "base/check.hpp"
#include "layout/routes.hpp"

namespace switchyard::scale_out {

ChunkWriter::ChunkWriter(DispatchStream const& stream)
    : stream_(stream), format_(dispatch_format(stream.terms, stream.node)), starts_(format_.streams) {
  require(stream.weights.given() || !stream.terms.weights, "topk_weights: expected a tensor, seen none");
}

std::size_t ChunkWriter::slots_of(std::size_t token) const noexcept {
  return stream_.tokens.slots_of(token);
}

std::size_t ChunkWriter::begin(std::span<std::byte> slot) {
  require(!done() && next_ == end_, "chunk: expected one that is full, and tokens that are left; seen {} rows left",
          end_ - next_);
  std::size_t const room = std::min(slot.size(), max_chunk_bytes);
  ChunkFill const fill = fill_chunk(
      format_, [this](std::size_t token) { return slots_of(token); }, end_, stream_.tokens.size(), room);
  if (fill.tokens == 0) refuse_small_slot(format_, slots_of(end_), room);
  first_ = end_;
  end_ += fill.tokens;
  chunk_ = slot.data();
  parts_ = chunk_parts(format_, fill.tokens, fill.slots);
  write_header(fill.slots);
  write_tokens(fill.slots);
  return parts_.bytes;
}

void ChunkWriter::write_header(std::size_t slots) noexcept {
  store(chunk_, ChunkHeader{.magic = dispatch_magic(stream_.terms),
                            .bytes = static_cast<std::uint32_t>(parts_.bytes),
                            .epoch = stream_.epoch,
                            .first = static_cast<std::uint32_t>(first_),
                            .tokens = static_cast<std::uint32_t>(end_ - first_),
                            .slots = static_cast<std::uint32_t>(slots)});
  store_all<std::uint32_t>(chunk_ + parts_.starts, starts_);
}

// Everything that goes with the rows. Gaps between parts are zeroed, so that equal calls send equal bytes.
void ChunkWriter::write_tokens(std::size_t slots) noexcept {
  NodeTokens const& tokens = stream_.tokens;
  std::size_t const count = end_ - first_;
  store_all(chunk_ + parts_.numbers, std::span(tokens.tokens).subspan(first_, count));
  auto experts = std::span(tokens.experts).subspan(slots_, slots);
  store_all(chunk_ + parts_.experts, experts);
  slots_ += slots;
  std::byte* mask = chunk_ + parts_.masks;
  std::byte* weight = chunk_ + parts_.weights;
  for (std::size_t token = first_; token < end_; ++token) {
    std::memcpy(mask, &tokens.masks[token], format_.mask_bytes);
    mask += format_.mask_bytes;
    if (stream_.terms.weights) weight = write_weights(token, weight);
    count_rows(token, experts.first(slots_of(token)));
    experts = experts.subspan(slots_of(token));
  }
  std::fill(mask, chunk_ + parts_.scales, std::byte{});
  std::fill(chunk_ + parts_.scales + count * format_.scale_bytes, chunk_ + parts_.rows, std::byte{});
}

std::byte* ChunkWriter::write_weights(std::size_t token, std::byte* to) const noexcept {
  for_each_bit(stream_.tokens.masks[token], [&](int slot) {
    store(to, weight_at(stream_.weights, stream_.tokens.tokens[token], slot));
    to += sizeof(float);
  });
  return to;
}

void ChunkWriter::count_rows(std::size_t token, std::span<std::uint16_t const> experts) noexcept {
  for_each_row(stream_.terms, stream_.node, stream_.tokens.masks[token], experts,
               [this](std::size_t stream, std::size_t) { ++starts_[stream]; });
}

std::optional<ChunkWriter::Row> ChunkWriter::next_row() noexcept {
  if (next_ == end_) return std::nullopt;
  std::size_t const i = next_ - first_;
  return Row{.token = stream_.tokens.tokens[next_++],
             .x = chunk_ + parts_.rows + i * format_.row_bytes,
             .scales = chunk_ + parts_.scales + i * format_.scale_bytes};
}

}  // namespace switchyard::scale_out
