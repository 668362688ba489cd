#include "layout/scale_out/dispatch_format.hpp"

#include "base/check.hpp"
#include "layout/routes.hpp"

namespace switchyard::scale_out {

namespace {

constexpr std::size_t bytes_of_bits(int bits) {
  return (static_cast<std::size_t>(bits) + 7) / 8;
}

}  // namespace

ChunkFormat dispatch_format(DispatchTerms const& terms, NodeExperts const& node) {
  bool const by_rank = terms.top_k == 0;
  bool const expanded = terms.layout == OutputLayout::expanded;
  require(terms.top_k >= 0 && terms.top_k <= max_top_k, "top_k: expected 0..{}, seen {}", max_top_k, terms.top_k);
  require(!by_rank || (!expanded && !terms.weights),
          "routing by rank: expected the flat layout without weights, seen {}",
          expanded ? "the expanded layout" : "weights");
  require(terms.row_bytes <= max_chunk_bytes && terms.scale_bytes <= max_chunk_bytes,
          "row: expected at most {} bytes, seen {} and {} of scales", max_chunk_bytes, terms.row_bytes,
          terms.scale_bytes);
  return {.streams = static_cast<std::size_t>(expanded ? node.count() : node.num_ranks()),
          .number_bytes = sizeof(std::uint32_t),
          .mask_bytes = bytes_of_bits(by_rank ? node.num_ranks() : terms.top_k),
          .scale_bytes = terms.scale_bytes,
          .row_bytes = terms.row_bytes,
          .weight_bytes = terms.weights ? sizeof(float) : 0,
          .expert_bytes = by_rank ? 0 : sizeof(std::uint16_t)};
}

std::uint32_t dispatch_magic(DispatchTerms const& terms) noexcept {
  constexpr std::uint32_t magic = 0x0043'5753;  // "SWC", little-endian
  std::uint32_t const kind = terms.top_k == 0 ? 0 : (terms.layout == OutputLayout::expanded ? 2 : 1);
  return magic | (kind << 24U);
}

std::size_t least_dispatch_chunk(DispatchTerms const& terms, NodeExperts const& node) {
  return chunk_parts(dispatch_format(terms, node), 1, static_cast<std::size_t>(terms.top_k)).bytes;
}

}  // namespace switchyard::scale_out
