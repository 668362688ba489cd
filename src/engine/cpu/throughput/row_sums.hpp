// Sums the expert outputs of the ranks of this node, wherever they lie, and gathers the weights that go with them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "call/hosted/row_mover.hpp"
#include "call/rows.hpp"
#include "call/throughput.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "layout/scale_out/placed_tokens.hpp"

namespace switchyard::cpu {

// What the rows of a token are, whichever node it is from.
struct RowAt {
  int rank = 0;  // in the order of `sources`
  std::int64_t row = 0;
};

// Not for two threads at once: it has room for the token that it works on.
class RowSums {
 public:
  // `sources`: by rank of the job, those of this node. What it is made of must outlive it.
  RowSums(CombineCall const& call, std::vector<SourceRows> const& sources) : call_(call), sources_(sources) {}

  // Begins a token.
  void begin() noexcept {
    rows_.clear();
    weights_.clear();
    next_rows_.clear();
  }
  // A row of the token that is likely to come next.
  void expect(RowAt const& at) { next_rows_.push_back(place_of(at)); }
  void add(RowAt const& at);
  [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }

  // Biases of a token of this rank, then the rows that were added; rounded to the output.
  void finish(std::int64_t token) const;
  // The rows alone, rounded to the dtype of the output, or as f32.
  void finish_partial(std::byte* to, bool f32) const;
  // The rows alone, as the part `own` of a sum over nodes, which must not outlive the token.
  void finish_within(NodeSum& sum) const;

  // Writes the weights of a token of this rank from the rows of those ranks that `here(rank)` says: a slot's from
  // the rank that holds its expert, or the sums over all ranks. Slots without are 0.
  template <typename Here>
  void gather_weights(std::int64_t token, Here const& here) const {
    detail::Routing const& routing = *call_.args.handle.routing();
    std::int64_t const slots = call_.out_weights.size(1);
    float* const out = static_cast<float*>(call_.out_weights.data) + token * slots;
    std::fill_n(out, slots, 0.0F);
    for (Route const& route : routing.table.of(token))
      if (here(route.rank)) add_weights(routing, token, route, out);
  }

  // The weight of a row, or of a slot of a row in the flat layout.
  [[nodiscard]] float weight_of(RowAt const& at, std::int64_t slot) const;

 private:
  [[nodiscard]] float const* row_weights() const noexcept {
    return call_.args.row_weights.given() ? weights_.data() : nullptr;
  }
  [[nodiscard]] std::byte const* place_of(RowAt const& at) const {
    return sources_[static_cast<std::size_t>(at.rank)].x +
           static_cast<std::size_t>(at.row) * row_bytes_of(call_.args.x);
  }
  // Of the rows alone.
  [[nodiscard]] RowSum sum_into(std::byte* out) const;
  void add_weights(detail::Routing const& routing, std::int64_t token, Route const& route, float* out) const;

  CombineCall const& call_;
  std::vector<SourceRows> const& sources_;
  std::vector<void const*> rows_;
  std::vector<float> weights_;
  std::vector<void const*> next_rows_;
};

}  // namespace switchyard::cpu
