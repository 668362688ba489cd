#include "call/hosted/route.hpp"

#include "layout/routes.hpp"
#include "layout/scale_out/node_tokens.hpp"

namespace switchyard {

void route(DispatchArgs const& args, BufferInfo const& buffer, Topology const& topology, detail::Routing& routing) {
  ExpertSplit const experts(buffer.options.num_experts, buffer.num_ranks);
  bool const one_node = topology.num_nodes() == 1;
  if (args.token_in_rank.given()) {
    routing.table = masked_routes(args.token_in_rank);
    if (!one_node) routing.to_nodes = scale_out::tokens_by_node(routing.table, topology, experts);
    return;
  }
  bool const flat = args.layout == OutputLayout::flat;
  routing.table = flat ? flat_routes(args.topk_idx, experts, buffer.num_ranks)
                       : expanded_routes(args.topk_idx, experts, buffer.num_ranks);
  if (!one_node) routing.to_nodes = scale_out::tokens_by_node(args.topk_idx, topology, experts);
}

}  // namespace switchyard
