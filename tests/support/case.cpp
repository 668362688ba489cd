#include "support/case.hpp"

#include <fmt/ranges.h>

#include <ostream>

#include "support/played_nodes.hpp"

namespace switchyard::test {
std::ostream& operator<<(std::ostream& out, Case const& c) {
  out << "{.launch=" << name_of(c.launch) << " .ranks=" << c.ranks << " .tokens=" << c.tokens
      << " .counts=" << name_of(c.counts) << " .hidden=" << c.hidden << " .experts=" << c.experts
      << " .top_k=" << c.top_k << " .routing=" << name_of(c.routing) << " .dtype=" << name_of(c.dtype)
      << " .combine_dtype=" << name_of(c.combine_dtype) << " .id_dtype=" << name_of(c.id_dtype);
  if (c.by_rank) out << " .by_rank";
  if (!c.weights) out << " .weights=false";
  if (c.cast) out << " .cast";
  if (c.expanded()) out << " .layout=expanded";
  if (c.alignment != 1) out << " .alignment=" << c.alignment;
  if (c.zero_padding) out << " .zero_padding";
  if (c.worst) out << " .worst";
  if (c.worst_rows != 0) out << " .worst_rows=" << c.worst_rows;
  if (c.extra_stride != 0) out << " .extra_stride=" << c.extra_stride;
  if (c.scales_by_column) out << " .scales_by_column";
  if (!c.nodes.empty()) out << fmt::format(" .nodes={{{}}}", fmt::join(c.nodes, ", "));
  if (c.f32_partials) out << " .f32_partials";
  return out << " .workers=" << c.workers << " .seed=" << c.seed << "}";
}

oracle::Terms terms_of(Case const& c) {
  return {.ranks = c.ranks,
          .experts = c.experts,
          .top_k = c.top_k,
          .hidden = c.hidden,
          .dtype = c.dtype,
          .id_dtype = c.id_dtype,
          .cast = c.cast ? SendCast::fp8 : SendCast::none,
          .by_rank = c.by_rank,
          .weights = c.weights,
          .by_expert = c.expanded(),
          .output_dtype = c.combine_dtype,
          .seed = c.seed,
          .node_by_rank = c.nodes.empty() ? played_nodes(c.ranks) : c.nodes,
          .f32_partials = c.f32_partials};
}

}  // namespace switchyard::test
