// What the chunks of a dispatch have in common.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "layout/scale_out/chunk_layout.hpp"
#include "layout/scale_out/node_experts.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::scale_out {

// All ranks pass the same in one call.
struct DispatchTerms {
  OutputLayout layout = OutputLayout::flat;
  int top_k = 0;         // 0: routed by rank, into the flat layout
  bool weights = false;  // top-k weights travel
  std::size_t row_bytes = 0;
  std::size_t scale_bytes = 0;  // of a row; 0: none
  std::int64_t max_tokens = 0;  // of any source
};

// Throws InvalidArgument for terms that no call can have.
ChunkFormat dispatch_format(DispatchTerms const& terms, NodeExperts const& node);

// The least ring slot in which every token fits.
std::size_t least_dispatch_chunk(DispatchTerms const& terms, NodeExperts const& node);

// What the first bytes of a chunk say: that it is one, of which version, and how its rows are placed.
[[nodiscard]] std::uint32_t dispatch_magic(DispatchTerms const& terms) noexcept;

// Calls visit(bit) for each bit of a mask, from the lowest on.
template <typename Visit>
void for_each_bit(std::uint64_t mask, Visit const& visit) {
  for (; mask != 0; mask &= mask - 1) visit(std::countr_zero(mask));
}

// Calls visit(stream, i) for each row that a token takes on the node. Flat: once for each local rank, in their
// order; i counts them. Expanded: for each of its slots there, duplicates too, and i is the slot's place among
// them.
template <typename Visit>
void for_each_row(DispatchTerms const& terms, NodeExperts const& node, std::uint64_t mask,
                  std::span<std::uint16_t const> experts, Visit const& visit) {
  if (terms.layout == OutputLayout::expanded) {
    for (std::size_t i = 0; i < experts.size(); ++i) visit(std::size_t{experts[i]}, i);
    return;
  }
  LocalRankMask ranks = terms.top_k == 0 ? mask : 0;
  for (std::uint16_t const expert : experts) ranks |= mask_of(node.local_rank_of(expert));
  std::size_t i = 0;
  for_each_bit(ranks, [&](int rank) { visit(static_cast<std::size_t>(rank), i++); });
}

}  // namespace switchyard::scale_out
