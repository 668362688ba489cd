#include "call/hosted/dispatch_streams.hpp"

#include "base/check.hpp"

namespace switchyard {

namespace {

// Along a handle tokens travel by rank, without their slots, unless ids go with them.
scale_out::DispatchTerms terms_of_chunks(PlaceTask const& task) {
  DispatchCall const& call = task.call;
  bool const by_rank = !call.args.topk_idx.given();
  return {.layout = by_rank ? OutputLayout::flat : call.routing->layout,
          .top_k = by_rank ? 0 : static_cast<int>(call.routing->top_k),
          .weights = call.args.topk_weights.given(),
          .row_bytes = call.shape.row_bytes,
          .scale_bytes = call.shape.scale_bytes,
          .max_tokens = task.max_tokens};
}

}  // namespace

DispatchStreams::DispatchStreams(PlaceTask const& task) : task_(task), terms_(terms_of_chunks(task)) {
  detail::Routing const& routing = *task.call.routing;
  if (terms_.top_k > 0 || routing.top_k == 0) return;
  NodeInJob const& node = task.crossing->node();
  by_rank_ = scale_out::tokens_by_node(
      routing.table, node.topology(),
      ExpertSplit(static_cast<int>(routing.table.slots_per_expert.size()), node.num_ranks()));
}

scale_out::DispatchStream DispatchStreams::to(int node) const {
  auto const& tokens = by_rank_.empty() ? task_.call.routing->to_nodes : by_rank_;
  return {.terms = terms_,
          .node = task_.crossing->experts_of(node),
          .tokens = tokens[static_cast<std::size_t>(node)],
          .weights = task_.call.args.topk_weights,
          .epoch = task_.epoch};
}

scale_out::ServedTokens const& DispatchStreams::served(std::size_t i) const {
  return (task_.placed != nullptr ? *task_.placed : task_.call.routing->served)[i];
}

std::vector<IncomingTokens> incoming_tokens(PlaceTask const& task, DispatchStreams const& streams) {
  std::vector<IncomingTokens> all;
  auto const served = task.crossing->served();
  for (std::size_t i = 0; i < served.size(); ++i)
    all.push_back({served[i], streams.served(i), task.placed == nullptr ? nullptr : &task.first_rows[i]});
  return all;
}

void read_chunk(scale_out::ChunkReader& reader, scale_out::Bytes chunk, IncomingTokens const& from,
                std::uint64_t epoch) {
  reader.read(chunk, {.rank = from.from.rank, .epoch = epoch, .counts = from.known.counts});
  require(reader.size() <= from.known.counts.tokens - from.tokens,
          "rank {}: tokens of its chunks: expected {} more, seen {}", from.from.rank,
          from.known.counts.tokens - from.tokens, reader.size());
}

void add_placed(IncomingTokens const& from, scale_out::ChunkToken const& token, OutputLayout layout,
                scale_out::PlacedTokens& placed) {
  placed.add(token, layout, [&](scale_out::ChunkRow const& row) {
    std::size_t const stream =
        layout == OutputLayout::expanded
            ? 1 + static_cast<std::size_t>(token.slots[static_cast<std::size_t>(row.slot)].local_expert)
            : 0;
    return (*from.first_rows)[static_cast<std::size_t>(row.local_rank)][stream];
  });
}

void keep_places(std::vector<IncomingTokens>& incoming, std::vector<scale_out::ServedTokens>& placed) {
  for (std::size_t i = 0; i < incoming.size(); ++i)
    append_in_order(incoming[i].pieces, incoming[i].from.rank, placed[i].placed);
}

}  // namespace switchyard
