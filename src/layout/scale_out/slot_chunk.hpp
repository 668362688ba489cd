// What crosses between nodes in low-latency mode: chunks that say by themselves which call they belong to, since
// several may be under way. Behind the header of each lies what the throughput mode sends, or weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "layout/scale_out/bytes.hpp"
#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_experts.hpp"
#include "layout/topology.hpp"

namespace switchyard::scale_out {

enum class SlotChunkKind : std::uint32_t {
  rows = 1,  // from a source to its rail peer: its tokens for the node
  asks,      // the same way: the source's combine has begun; weights of the slots that it has there
  sums,      // back: the node's sums of the source's tokens
  parts,     // either way: the sender goes on without the receiver until a reset
};

struct SlotChunkHeader {
  std::uint32_t magic = 0;
  SlotChunkKind kind = SlotChunkKind::rows;
  std::uint64_t epoch = 0;   // of the frame
  std::uint64_t digest = 0;  // of the call
  // Ranks of the node that serves that the source and they do without each other: as the source says (rows), as the
  // node does (sums).
  LocalRankMask masked = 0;
  std::uint32_t frame = 0;
  std::uint32_t combine = 0;  // asks, sums: number of the combine of the dispatch, from 0 on
  std::uint32_t bytes = 0;    // of the whole chunk
  std::uint32_t stream = 0;   // rows, sums: tokens of the source for the node; asks: weights
  std::uint32_t first = 0;    // of these, the first in this chunk
  std::uint32_t count = 0;    // and how many
  std::uint64_t reserved = 0;
};
static_assert(sizeof(SlotChunkHeader) == 64);

inline constexpr std::uint32_t slot_chunk_magic = 0x314c'5753;  // "SWL1", little-endian

// Where the tokens of a chunk of rows begin: behind the header, and in the first chunk behind the counts.
constexpr std::size_t slot_rows_at(std::size_t counts_bytes) noexcept {
  return align_up(sizeof(SlotChunkHeader) + counts_bytes, rows_alignment);
}

// The least ring slot in which each chunk to a node fits.
std::size_t least_slot_chunk(DispatchTerms const& terms, NodeExperts const& node);

// What the reader of a header knows beforehand.
struct SlotChunkTerms {
  int rank = 0;  // who wrote it, for errors
  int frames = 1;
  std::int64_t max_tokens = 0;
  int top_k = 0;
};

// Reads and checks a header: afterwards the chunk lies within `chunk`, which may be longer, and its tokens or
// weights within what a call may have. Throws InvalidArgument, naming the rank.
SlotChunkHeader read_slot_header(Bytes chunk, SlotChunkTerms const& terms);

// Weights of a chunk that asks, copied to their places among all of them.
void read_weights(Bytes chunk, SlotChunkHeader const& header, std::span<float> weights);

}  // namespace switchyard::scale_out
