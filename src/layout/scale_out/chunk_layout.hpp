// Where the parts of a chunk lie: tokens of one source for one node (or what comes back for them), in one slot of a
// registered ring, sent by one write. All offsets follow from the header's numbers and what both ends know, so none
// travels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout/receive_block.hpp"
#include "layout/scale_out/bytes.hpp"

namespace switchyard::scale_out {

// 256 KiB, from which on writes are as fast as any, and room for one more row of 32 KiB: a chunk that has no room
// for the next row then has 256 KiB at least.
inline constexpr std::size_t default_chunk_bytes = std::size_t{288} << 10;
// A chunk must fit into one registration of memory.
inline constexpr std::size_t max_chunk_bytes = std::size_t{1} << 30;
inline constexpr std::size_t rows_alignment = 64;
// Of the scales: what copy engines ask for.
inline constexpr std::size_t scales_alignment = 16;

struct ChunkHeader {
  std::uint32_t magic = 0;  // says which kind of chunk, and its version
  std::uint32_t bytes = 0;  // of the whole chunk
  std::uint64_t epoch = 0;
  std::uint32_t first = 0;  // number of its first token among the source's tokens for the node
  std::uint32_t tokens = 0;
  std::uint32_t slots = 0;  // of all its tokens
  std::uint32_t reserved = 0;
};
static_assert(sizeof(ChunkHeader) == 32);

// Bytes of everything in a chunk that repeats; 0: it does not travel.
struct ChunkFormat {
  std::size_t streams = 0;  // starts of streams, 4 bytes each
  // By token.
  std::size_t number_bytes = 0;
  std::size_t mask_bytes = 0;
  std::size_t scale_bytes = 0;
  std::size_t row_bytes = 0;
  // By slot.
  std::size_t weight_bytes = 0;
  std::size_t expert_bytes = 0;
};

// Byte offsets from the start of the chunk. Wider numbers come first, so each lies at a multiple of its own size.
// Scales have a block of their own: behind each row they would shift the next row off its alignment, and whoever
// places a row copies scales to another place anyway.
struct ChunkParts {
  std::size_t starts = sizeof(ChunkHeader);
  std::size_t numbers = 0;
  std::size_t weights = 0;
  std::size_t experts = 0;
  std::size_t masks = 0;
  std::size_t scales = 0;
  std::size_t rows = 0;
  std::size_t bytes = 0;
};

constexpr ChunkParts chunk_parts(ChunkFormat const& format, std::size_t tokens, std::size_t slots) noexcept {
  ChunkParts parts;
  parts.numbers = parts.starts + format.streams * sizeof(std::uint32_t);
  parts.weights = parts.numbers + tokens * format.number_bytes;
  parts.experts = parts.weights + slots * format.weight_bytes;
  parts.masks = parts.experts + slots * format.expert_bytes;
  std::size_t const end = parts.masks + tokens * format.mask_bytes;
  parts.scales = format.scale_bytes > 0 ? align_up(end, scales_alignment) : end;
  parts.rows = align_up(parts.scales + tokens * format.scale_bytes, rows_alignment);
  parts.bytes = parts.rows + tokens * format.row_bytes;
  return parts;
}

// What a chunk holds.
struct ChunkFill {
  std::size_t tokens = 0;
  std::size_t slots = 0;
};

// As many of the tokens first, first + 1, ... below `end` as fit into `room` bytes. `slots_of`: the slots of a
// token that travel with it.
template <typename SlotsOf>
ChunkFill fill_chunk(ChunkFormat const& format, SlotsOf const& slots_of, std::size_t first, std::size_t end,
                     std::size_t room) {
  ChunkFill fill;
  while (first + fill.tokens < end) {
    std::size_t const slots = fill.slots + slots_of(first + fill.tokens);
    if (chunk_parts(format, fill.tokens + 1, slots).bytes > room) break;
    fill = {.tokens = fill.tokens + 1, .slots = slots};
  }
  return fill;
}

// Throws InvalidArgument, since a ring slot of `room` bytes has no room for one token with so many slots.
[[noreturn]] void refuse_small_slot(ChunkFormat const& format, std::size_t slots, std::size_t room);

// What the reader of a chunk knows beforehand.
struct ChunkOrigin {
  int rank = 0;  // who wrote it, for errors
  std::uint64_t epoch = 0;
  std::uint32_t tokens = 0;  // of the whole stream
};

// Reads and checks a header: afterwards all parts of the chunk lie within `chunk`, which may be longer, and its
// tokens within the stream. Throws InvalidArgument, naming the rank.
ChunkHeader read_header(Bytes chunk, std::uint32_t magic, ChunkFormat const& format, ChunkOrigin const& origin);

}  // namespace switchyard::scale_out
