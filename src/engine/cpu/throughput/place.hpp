// Writes the rows of a dispatch to where their receivers have placed them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "call/hosted/row_mover.hpp"
#include "call/throughput.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/token_chunks.hpp"

namespace switchyard::cpu {

// Stores one value of an array. Results begin anywhere.
template <typename T>
void store_at(std::byte* base, std::int64_t index, T value) noexcept {
  std::memcpy(base + static_cast<std::size_t>(index) * sizeof(T), &value, sizeof(T));
}

// What a RowLoader of a dispatch reads.
RowSource row_source(DispatchArgs const& args);

// The call's routing must have its final rows. What it is made of must outlive it. Any number of threads may use
// it.
class RowWriter {
 public:
  RowWriter(DispatchCall const& call, std::vector<Destination> const& destinations)
      : call_(call), routing_(*call.routing), shape_(call.shape), destinations_(destinations) {}

  // What one worker does: writes the tokens of the chunks that it takes. Each row is read once, and written once to
  // every destination. When this returns, the caller may release the flags.
  void write(TokenChunks& chunks) const;

  // What a RowLoader of the call reads.
  [[nodiscard]] RowSource source() const { return row_source(call_.args); }
  // The same for one token, whose row is `row`. Some stores are non-temporal: see store_fence().
  void store_rows(std::int64_t token, LoadedRow const& row) const;
  // Whether the token has rows on this node.
  [[nodiscard]] bool has_rows(std::int64_t token) const;

  // Fills the rows of this rank's own result that no source writes.
  void fill_padding(Destination const& own) const;

 private:
  [[nodiscard]] bool expanded() const { return routing_.layout == OutputLayout::expanded; }
  [[nodiscard]] bool is_here(Route const& route) const {
    return destinations_[static_cast<std::size_t>(route.rank)].x != nullptr;
  }
  void fill_padding_row(Destination const& own, std::int64_t row) const;
  void prefetch_row(Destination const& to, std::size_t row) const;
  void store_row(Route const& route, std::int64_t token, LoadedRow const& row) const;
  void store_topk(Destination const& to, Route const& route, std::int64_t token) const;

  DispatchCall const& call_;
  detail::Routing const& routing_;
  ReceiveShape const& shape_;
  std::vector<Destination> const& destinations_;  // by rank of the job; those of other nodes have no memory here
};

}  // namespace switchyard::cpu
