#include "layout/scale_out/chunk_layout.hpp"

#include "base/check.hpp"

namespace switchyard::scale_out {

void refuse_small_slot(ChunkFormat const& format, std::size_t slots, std::size_t room) {
  std::size_t const needed = chunk_parts(format, 1, slots).bytes;
  throw InvalidArgument(
      fmt::format("chunk: expected a ring slot of at least {} bytes, since a token with {} slots has a row of {} "
                  "bytes and {} bytes of scales; seen {} bytes",
                  needed, slots, format.row_bytes, format.scale_bytes, room));
}

ChunkHeader read_header(Bytes chunk, std::uint32_t magic, ChunkFormat const& format, ChunkOrigin const& origin) {
  require(chunk.size() >= sizeof(ChunkHeader), "rank {}: chunk: expected at least {} bytes, seen {}", origin.rank,
          sizeof(ChunkHeader), chunk.size());
  auto const header = load<ChunkHeader>(chunk.data());
  require(header.magic == magic && header.reserved == 0, "rank {}: chunk: magic: expected {:#x}, seen {:#x}",
          origin.rank, magic, header.magic);
  require(header.epoch == origin.epoch, "rank {}: chunk: epoch: expected {}, seen {}", origin.rank, origin.epoch,
          header.epoch);
  require(header.tokens > 0 && header.tokens <= origin.tokens && header.first <= origin.tokens - header.tokens,
          "rank {}: chunk: tokens: expected some of 0..{}, seen {} from {} on", origin.rank,
          static_cast<std::int64_t>(origin.tokens) - 1, header.tokens, header.first);
  std::size_t const bytes = chunk_parts(format, header.tokens, header.slots).bytes;
  require(header.bytes == bytes && bytes <= chunk.size(),
          "rank {}: chunk: bytes: expected {} for {} tokens with {} slots, seen {} in a ring slot of {}",
          origin.rank, bytes, header.tokens, header.slots, header.bytes, chunk.size());
  return header;
}

}  // namespace switchyard::scale_out
