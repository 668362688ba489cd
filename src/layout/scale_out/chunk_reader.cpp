#include "layout/scale_out/chunk_reader.hpp"

#include <algorithm>
#include <bit>

#include "base/check.hpp"

namespace switchyard::scale_out {

ChunkReader::ChunkReader(DispatchTerms const& terms, NodeExperts const& node)
    : terms_(terms), node_(node), format_(dispatch_format(terms, node)), next_(format_.streams) {}

void ChunkReader::read(Bytes chunk, ChunkSource const& source) {
  size_ = 0;
  header_ = read_header(chunk, dispatch_magic(terms_), format_,
                        {.rank = source.rank, .epoch = source.epoch, .tokens = source.counts.tokens});
  copy(chunk);
  check_tokens(source.rank);
  check_starts(source);
  place(source);
  check_ends(source);
  size_ = entries_.size();
}

// What is checked is what is used: a peer that writes here once more changes nothing.
void ChunkReader::copy(Bytes chunk) {
  ChunkParts const parts = chunk_parts(format_, header_.tokens, header_.slots);
  load_all(chunk.data() + parts.starts, next_);
  numbers_.resize(header_.tokens);
  load_all(chunk.data() + parts.numbers, numbers_);
  weights_.resize(format_.weight_bytes > 0 ? header_.slots : 0);
  load_all(chunk.data() + parts.weights, weights_);
  experts_.resize(format_.expert_bytes > 0 ? header_.slots : 0);
  load_all(chunk.data() + parts.experts, experts_);
  entries_.assign(header_.tokens, {});
  std::byte const* mask = chunk.data() + parts.masks;
  for (Entry& entry : entries_) {
    std::memcpy(&entry.mask, mask, format_.mask_bytes);
    mask += format_.mask_bytes;
  }
  x_ = chunk.data() + parts.rows;
  scales_ = chunk.data() + parts.scales;
}

void ChunkReader::check_tokens(int source) const {
  int const width = by_rank() ? node_.num_ranks() : terms_.top_k;
  std::uint64_t const possible = ~std::uint64_t{0} >> (64 - width);
  std::int64_t last = -1;
  std::size_t slots = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    require(numbers_[i] > last && numbers_[i] < terms_.max_tokens,
            "rank {}: chunk: number of a token: expected {}..{}, seen {}", source, last + 1, terms_.max_tokens - 1,
            numbers_[i]);
    last = numbers_[i];
    std::uint64_t const mask = entries_[i].mask;
    require(mask != 0 && (mask & ~possible) == 0,
            "rank {}: chunk: mask of token {}: expected some bits of {:#x}, seen {:#x}", source, last, possible,
            mask);
    if (!by_rank()) slots += static_cast<std::size_t>(std::popcount(mask));
  }
  require(slots == header_.slots, "rank {}: chunk: slots: expected {} as in the masks, seen {}", source, slots,
          header_.slots);
  for (int const expert : experts_) {
    require(expert < node_.count(), "rank {}: chunk: expert of the node: expected 0..{}, seen {}", source,
            node_.count() - 1, expert);
  }
}

void ChunkReader::check_starts(ChunkSource const& source) const {
  require(rows_of_streams(source.counts).size() == next_.size(),
          "rank {}: chunk: counts: expected those of {} streams, seen {}", source.rank, next_.size(),
          rows_of_streams(source.counts).size());
  if (header_.first > 0) return;
  for (std::uint32_t const start : next_)
    require(start == 0, "rank {}: chunk: rows before the first token: expected 0, seen {}", source.rank, start);
}

void ChunkReader::place(ChunkSource const& source) {
  slots_.clear();
  rows_.clear();
  for (Entry& entry : entries_) place_token(entry, source);
}

void ChunkReader::place_token(Entry& entry, ChunkSource const& source) {
  std::size_t const first = slots_.size();
  if (!by_rank()) {
    for_each_bit(entry.mask, [&](int slot) {
      int const expert = experts_[slots_.size()];
      int const rank = node_.local_rank_of(expert);
      slots_.push_back({.slot = slot,
                        .expert = expert,
                        .local_rank = rank,
                        .local_expert = expert - node_.first(rank),
                        .weight = weights_.empty() ? 0.0F : weights_[slots_.size()]});
    });
  }
  auto const& rows = rows_of_streams(source.counts);
  auto const experts = std::span(experts_).subspan(first, slots_.size() - first);
  for_each_row(terms_, node_, entry.mask, experts, [&](std::size_t stream, std::size_t i) {
    require(next_[stream] < rows[stream], "rank {}: chunk: row of stream {}: expected 0..{}, seen {}", source.rank,
            stream, static_cast<std::int64_t>(rows[stream]) - 1, next_[stream]);
    bool const expanded = terms_.layout == OutputLayout::expanded;
    rows_.push_back({.local_rank = expanded ? slots_[first + i].local_rank : static_cast<int>(stream),
                     .slot = expanded ? static_cast<int>(i) : -1,
                     .row = next_[stream]++});
  });
  entry.slots_end = slots_.size();
  entry.rows_end = rows_.size();
}

// The last chunk ends where the notify said.
void ChunkReader::check_ends(ChunkSource const& source) const {
  if (header_.first + header_.tokens < source.counts.tokens) return;
  auto const& rows = rows_of_streams(source.counts);
  for (std::size_t stream = 0; stream < rows.size(); ++stream) {
    require(next_[stream] == rows[stream], "rank {}: chunk: rows of stream {}: expected {}, seen {}", source.rank,
            stream, rows[stream], next_[stream]);
  }
}

ChunkToken ChunkReader::token(std::size_t i) const noexcept {
  Entry const begin = i > 0 ? entries_[i - 1] : Entry{};
  Entry const& end = entries_[i];
  return {.token = numbers_[i],
          .slots = std::span(slots_).subspan(begin.slots_end, end.slots_end - begin.slots_end),
          .rows = std::span(rows_).subspan(begin.rows_end, end.rows_end - begin.rows_end),
          .x = x_ + i * format_.row_bytes,
          .scales = scales_ + i * format_.scale_bytes};
}

}  // namespace switchyard::scale_out
