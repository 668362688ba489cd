#include "call/hosted/call_tally.hpp"

#include <numeric>

#include "call/rows.hpp"

namespace switchyard {

namespace {

// Bytes of a row, and of what goes with it.
std::int64_t bytes_of_row(ReceiveShape const& shape) {
  return static_cast<std::int64_t>(shape.row_bytes + shape.scale_bytes + shape.topk_bytes + shape.weight_bytes +
                                   sizeof(std::int32_t));  // source_token
}

std::int64_t bytes_of_row(CombineArgs const& args) {
  std::size_t bytes = 0;
  for (ConstTensorView const& view : {args.x, args.topk_weights, args.row_weights})
    if (view.given()) bytes += row_bytes_of(view);
  return static_cast<std::int64_t>(bytes);
}

// What a source sends: its rows, then its slots for each local expert; see PlacementProblem.
std::int64_t rows_of(std::span<std::int64_t const> counts, OutputLayout layout) {
  if (layout == OutputLayout::flat) return counts.front();
  return std::accumulate(counts.begin() + 1, counts.end(), std::int64_t{0});
}

// Rows that this rank's tokens have at each rank.
std::vector<std::int64_t> rows_at_ranks(RouteTable const& table, std::size_t num_ranks) {
  std::vector<std::int64_t> rows(num_ranks, 0);
  for (Route const& route : table.routes) ++rows[static_cast<std::size_t>(route.rank)];
  return rows;
}

}  // namespace

void CallTally::end_dispatch(detail::Routing const& routing, ReceiveShape const& shape) {
  if (!counts_) return;
  std::size_t const ranks = counts_->dispatch_bytes.size();
  std::size_t const experts = counts_->tokens.size() / ranks;
  for (std::size_t source = 0; source < ranks; ++source) {
    auto const counts = std::span(routing.received_counts).subspan(source * (1 + experts), 1 + experts);
    counts_->dispatch_bytes[source] = rows_of(counts, routing.layout) * bytes_of_row(shape);
    std::copy(counts.begin() + 1, counts.end(),
              counts_->tokens.begin() + static_cast<std::ptrdiff_t>(source * experts));
  }
  counts_->dispatches = 1;
  counts_->dispatch_ns = monotonic_ns() - begin_ns_;
  counter_.add(*counts_);
}

void CallTally::end_combine(detail::Routing const& routing, CombineArgs const& args) {
  if (!counts_) return;
  std::vector<std::int64_t> const rows = rows_at_ranks(routing.table, counts_->combine_bytes.size());
  for (std::size_t rank = 0; rank < rows.size(); ++rank)
    counts_->combine_bytes[rank] = rows[rank] * bytes_of_row(args);
  counts_->combines = 1;
  counts_->combine_ns = monotonic_ns() - begin_ns_;
  counter_.add(*counts_);
}

}  // namespace switchyard
