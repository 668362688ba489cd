#include "support/low_latency_case.hpp"

#include <algorithm>
#include <ostream>

#include "support/played_nodes.hpp"

namespace switchyard::test {

std::ostream& operator<<(std::ostream& out, SlotCase const& c) {
  out << "{.launch=" << name_of(c.launch) << " .ranks=" << c.ranks << " .tokens=" << c.tokens
      << " .counts=" << name_of(c.counts) << " .hidden=" << c.hidden << " .experts=" << c.experts
      << " .top_k=" << c.top_k << " .routing=" << name_of(c.routing) << " .dtype=" << name_of(c.dtype);
  if (c.opaque()) out << " .row_bytes=" << c.row_bytes << " .scale_bytes=" << c.scale_bytes;
  out << " .cast=" << name_of(c.cast) << " .layout=" << name_of(c.layout) << " .id_dtype=" << name_of(c.id_dtype)
      << " .combine_dtype=" << name_of(c.combine_dtype);
  if (!c.weights) out << " .weights=false";
  if (c.coding != CombineCoding::none) out << " .coding=logfmt10";
  if (!c.zero_copy) out << " .zero_copy=false";
  if (c.extra_stride != 0) out << " .extra_stride=" << c.extra_stride;
  if (c.scales_by_column) out << " .scales_by_column";
  if (c.identity) out << " .identity";
  return out << " .max_results=" << c.max_results << " .workers=" << c.workers << " .seed=" << c.seed << "}";
}

oracle::Terms terms_of(SlotCase const& c) {
  return {.ranks = c.ranks,
          .experts = c.experts,
          .top_k = c.top_k,
          .hidden = c.hidden,
          .dtype = c.dtype,
          .cast = c.cast,
          .weights = c.weights,
          .by_expert = c.by_expert(),
          .output_dtype = c.combine_dtype,
          .seed = c.seed,
          .node_by_rank = played_nodes(c.ranks)};
}

oracle::SlotTerms slot_terms(SlotCase const& c) {
  return {.max_tokens = c.tokens, .coding = c.coding, .row_bytes = c.row_bytes, .scale_bytes = c.scale_bytes};
}

LowLatencyOptions slot_options(SlotCase const& c) {
  LowLatencyOptions options;
  options.max_tokens = c.tokens;
  options.hidden = c.hidden;
  options.num_experts = c.experts;
  options.top_k = c.top_k;
  options.max_results = c.max_results;
  options.num_workers = c.workers;
  std::int64_t const row = c.width() * static_cast<std::int64_t>(size_of(c.received_dtype()));
  if (row > 2 * c.hidden) options.max_row_bytes = row;
  if (c.opaque() && c.scale_bytes > 4 * c.groups()) options.max_scale_bytes = c.scale_bytes;
  return options;
}

}  // namespace switchyard::test
