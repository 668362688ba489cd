#include "engine/cpu/throughput/row_sums.hpp"

namespace switchyard::cpu {

void RowSums::add(RowAt const& at) {
  SourceRows const& from = sources_[static_cast<std::size_t>(at.rank)];
  rows_.push_back(place_of(at));
  weights_.push_back(from.row_weights != nullptr ? from.row_weights[at.row] : 1.0F);
}

RowSum RowSums::sum_into(std::byte* out) const {
  return {.rows = rows_,
          .row_weights = row_weights(),
          .out = out,
          .count = static_cast<std::size_t>(call_.args.x.size(1)),
          .dtype = call_.args.x.dtype,
          .next_rows = next_rows_};
}

void RowSums::finish(std::int64_t token) const {
  RowSum sum = sum_into(const_cast<std::byte*>(row_at(call_.out, token)));
  sum.bias0 = row_or_none(call_.args.bias0, token);
  sum.bias1 = row_or_none(call_.args.bias1, token);
  sum_rows(sum);
}

void RowSums::finish_partial(std::byte* to, bool f32) const {
  RowSum sum = sum_into(to);
  if (f32) return sum_rows_to_f32(sum);
  sum.out_is_read_next = true;  // by the transport
  sum_rows(sum);
}

void RowSums::finish_within(NodeSum& sum) const {
  sum.own_rows = rows_;
  sum.own_weights = row_weights();
  sum.next_rows = next_rows_;
}

void RowSums::add_weights(detail::Routing const& routing, std::int64_t token, Route const& route,
                          float* out) const {
  RowAt const at{.rank = route.rank, .row = route.row};
  if (routing.layout == OutputLayout::expanded) {
    out[route.slot] = weight_of(at, route.slot);
    return;
  }
  std::int64_t const slots = call_.out_weights.size(1);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    if (call_.args.weights_of_all_ranks) {
      out[slot] += weight_of(at, slot);
    } else if (routing.table.slot_rank[static_cast<std::size_t>(token * slots + slot)] == route.rank) {
      out[slot] = weight_of(at, slot);
    }
  }
}

float RowSums::weight_of(RowAt const& at, std::int64_t slot) const {
  float const* const from = sources_[static_cast<std::size_t>(at.rank)].weights;
  if (call_.args.handle.routing()->layout == OutputLayout::expanded) return from[at.row];
  return from[at.row * call_.out_weights.size(1) + slot];
}

}  // namespace switchyard::cpu
