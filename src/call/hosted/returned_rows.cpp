#include "call/hosted/returned_rows.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard {

scale_out::CombineStream ReturnedRows::combine_stream() const noexcept {
  return {.row_bytes = stream_.row_bytes,
          .tokens = static_cast<std::uint32_t>(stream_.tokens.size()),
          .weights = stream_.weights,
          .epoch = stream_.epoch};
}

std::optional<scale_out::CombineReader::Row> ReturnedRows::row() const noexcept {
  for (Held const& held : held_)
    if (held.reader.first() <= next_ && next_ < held.end) return held.reader.row(next_ - held.reader.first());
  return std::nullopt;
}

std::optional<scale_out::Port::Chunk> ReturnedRows::pass() {
  ++next_;
  auto const used = std::ranges::find(held_, next_, &Held::end);
  if (used == held_.end()) return std::nullopt;
  auto const chunk = used->chunk;
  held_.erase(used);
  return chunk;
}

bool ReturnedRows::take(scale_out::Port& port) {
  bool any = false;
  while (auto const chunk = port.next_chunk(stream_.way.neighbour)) {
    scale_out::CombineReader reader(combine_stream());
    reader.read(chunk->memory, stream_.way.rank);
    require(reader.size() > 0 && reader.first() >= next_,
            "rank {}: first token of a chunk: expected {} or later, seen {}", stream_.way.rank, next_,
            reader.first());
    std::size_t const end = reader.first() + reader.size();
    held_.push_back({std::move(reader), *chunk, end});
    any = true;
  }
  return any;
}

}  // namespace switchyard
