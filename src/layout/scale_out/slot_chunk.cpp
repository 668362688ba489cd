#include "layout/scale_out/slot_chunk.hpp"

#include <cstring>

#include "base/check.hpp"
#include "layout/scale_out/notify.hpp"

namespace switchyard::scale_out {

namespace {

std::uint64_t most_of(SlotChunkKind kind, SlotChunkTerms const& terms) {
  auto const tokens = static_cast<std::uint64_t>(terms.max_tokens);
  return kind == SlotChunkKind::asks ? tokens * static_cast<std::uint64_t>(terms.top_k) : tokens;
}

void check_numbers(SlotChunkHeader const& header, SlotChunkTerms const& terms) {
  std::uint64_t const most = most_of(header.kind, terms);
  require(header.stream <= most, "rank {}: chunk: tokens or weights: expected 0..{}, seen {}", terms.rank, most,
          header.stream);
  require(header.first <= header.stream && header.count <= header.stream - header.first,
          "rank {}: chunk: expected some of {}, seen {} from {} on", terms.rank, header.stream, header.count,
          header.first);
  require(header.count > 0 || header.stream == 0, "rank {}: chunk: expected some of {}, seen none", terms.rank,
          header.stream);
}

}  // namespace

std::size_t least_slot_chunk(DispatchTerms const& terms, NodeExperts const& node) {
  return slot_rows_at(notify_bytes(node)) + least_dispatch_chunk(terms, node);
}

SlotChunkHeader read_slot_header(Bytes chunk, SlotChunkTerms const& terms) {
  require(chunk.size() >= sizeof(SlotChunkHeader), "rank {}: chunk: expected at least {} bytes, seen {}",
          terms.rank, sizeof(SlotChunkHeader), chunk.size());
  auto const header = load<SlotChunkHeader>(chunk.data());
  require(header.magic == slot_chunk_magic && header.reserved == 0,
          "rank {}: chunk: magic: expected {:#x}, seen {:#x}", terms.rank, slot_chunk_magic, header.magic);
  auto const kind = static_cast<std::uint32_t>(header.kind);
  require(kind >= 1 && kind <= static_cast<std::uint32_t>(SlotChunkKind::parts),
          "rank {}: chunk: kind: expected 1..4, seen {}", terms.rank, kind);
  require(header.bytes >= sizeof header && header.bytes <= chunk.size(),
          "rank {}: chunk: bytes: expected {}..{}, seen {}", terms.rank, sizeof header, chunk.size(), header.bytes);
  require(header.frame < static_cast<std::uint32_t>(terms.frames), "rank {}: chunk: frame: expected 0..{}, seen {}",
          terms.rank, terms.frames - 1, header.frame);
  require(header.epoch > 0 || header.kind == SlotChunkKind::parts,
          "rank {}: chunk: epoch: expected 1 or more, seen 0", terms.rank);
  check_numbers(header, terms);
  return header;
}

void read_weights(Bytes chunk, SlotChunkHeader const& header, std::span<float> weights) {
  std::size_t const bytes = header.count * sizeof(float);
  require(header.bytes == sizeof header + bytes, "chunk: bytes: expected {} for {} weights, seen {}",
          sizeof header + bytes, header.count, header.bytes);
  require(weights.size() == header.stream, "chunk: weights: expected {}, seen {}", weights.size(), header.stream);
  if (bytes > 0) std::memcpy(weights.data() + header.first, chunk.data() + sizeof header, bytes);
}

}  // namespace switchyard::scale_out
