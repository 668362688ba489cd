// What a dispatch sends between nodes, and what its combine sends back, to the byte: without a packet's own header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "layout/scale_out/combine_chunk.hpp"
#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_tokens.hpp"

namespace switchyard::scale_out {

struct WireSize {
  std::int64_t writes = 0;   // of chunks and notify messages
  std::int64_t rows = 0;     // each of them a (token, node)
  std::int64_t payload = 0;  // bytes of rows and scales
  std::int64_t bytes = 0;    // of all

  WireSize& operator+=(WireSize const& other) noexcept;
};

// From one source to one node, in ring slots of `slot_bytes`. Throws InvalidArgument when a token does not fit.
WireSize dispatch_wire_size(DispatchTerms const& terms, NodeExperts const& node, NodeTokens const& tokens,
                            std::size_t slot_bytes);
// Back to the source.
WireSize combine_wire_size(CombineStream const& stream, std::size_t slot_bytes);

// From a source to all other nodes. `tokens`: by node.
WireSize source_wire_size(DispatchTerms const& terms, Topology const& topology, ExpertSplit const& experts,
                          int source, std::span<NodeTokens const> tokens, std::size_t slot_bytes);

}  // namespace switchyard::scale_out
