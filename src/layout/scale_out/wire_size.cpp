#include "layout/scale_out/wire_size.hpp"

#include <algorithm>

#include "layout/scale_out/notify.hpp"

namespace switchyard::scale_out {

namespace {

template <typename SlotsOf>
WireSize chunks_wire_size(ChunkFormat const& format, SlotsOf const& slots_of, std::size_t tokens,
                          std::size_t slot_bytes) {
  std::size_t const room = std::min(slot_bytes, max_chunk_bytes);
  WireSize size;
  for (std::size_t first = 0; first < tokens;) {
    ChunkFill const fill = fill_chunk(format, slots_of, first, tokens, room);
    if (fill.tokens == 0) refuse_small_slot(format, slots_of(first), room);
    first += fill.tokens;
    ++size.writes;
    size.bytes += static_cast<std::int64_t>(chunk_parts(format, fill.tokens, fill.slots).bytes);
  }
  size.rows = static_cast<std::int64_t>(tokens);
  size.payload = static_cast<std::int64_t>(tokens * (format.row_bytes + format.scale_bytes));
  return size;
}

}  // namespace

WireSize& WireSize::operator+=(WireSize const& other) noexcept {
  writes += other.writes;
  rows += other.rows;
  payload += other.payload;
  bytes += other.bytes;
  return *this;
}

WireSize dispatch_wire_size(DispatchTerms const& terms, NodeExperts const& node, NodeTokens const& tokens,
                            std::size_t slot_bytes) {
  WireSize size = chunks_wire_size(
      dispatch_format(terms, node), [&](std::size_t token) { return tokens.slots_of(token); }, tokens.size(),
      slot_bytes);
  ++size.writes;
  size.bytes += static_cast<std::int64_t>(notify_bytes(node));
  return size;
}

WireSize combine_wire_size(CombineStream const& stream, std::size_t slot_bytes) {
  return chunks_wire_size(
      combine_format(stream), [&](std::size_t token) { return stream.weights_of(token); }, stream.tokens,
      slot_bytes);
}

WireSize source_wire_size(DispatchTerms const& terms, Topology const& topology, ExpertSplit const& experts,
                          int source, std::span<NodeTokens const> tokens, std::size_t slot_bytes) {
  WireSize size;
  for (int node = 0; node < topology.num_nodes(); ++node) {
    if (node == topology.node_of(source)) continue;
    size += dispatch_wire_size(terms, NodeExperts(topology, experts, node), tokens[static_cast<std::size_t>(node)],
                               slot_bytes);
  }
  return size;
}

}  // namespace switchyard::scale_out
