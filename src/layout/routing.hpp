// What a dispatch leaves behind for its combine and for cached dispatches: the inside of a Handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "layout/placement.hpp"
#include "layout/routes.hpp"
#include "layout/row_merge.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "layout/scale_out/placed_tokens.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::detail {

class Routing;

// A range of this rank's heap that rounds have to themselves, for as long as anybody keeps `owner`.
struct RoundRoom {
  std::size_t offset = 0;  // in the heap
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<void> owner{};
};

// A part of a dispatch that ran in rounds, because its result did not fit into the heap.
struct Round {
  std::shared_ptr<Routing const> routing;
  std::int64_t first_token = 0;
  std::vector<RowSegment> segments;  // where its rows are in the whole result
};

class Routing {
 public:
  std::uint64_t buffer_id = 0;  // of the buffer that made the handle
  std::uint64_t dispatch = 0;   // epoch of the dispatch, the same on all ranks; 0 until the routing is complete
  OutputLayout layout = OutputLayout::flat;
  int rank = 0;                 // this rank
  std::int64_t num_tokens = 0;  // N of this rank
  std::int64_t top_k = 0;       // 0: routed by token_in_rank
  int expert_alignment = 1;

  // Sending side: where this rank's tokens went. Their rows are final once the dispatch is complete.
  RouteTable table;
  std::vector<std::int64_t> rows_of_rank;  // [R] rows that each rank's result has

  // Receiving side.
  Placement placement;
  // Hosted calls: what the sources announced, [R, 1 + L]; see PlacementProblem::counts.
  std::vector<std::int64_t> received_counts;

  // Jobs of several nodes: which of this rank's tokens go to each node, and what this rank has placed
  // for the ranks of other nodes that it serves (layout/served_ranks.hpp), in their order.
  std::vector<scale_out::NodeTokens> to_nodes;
  std::vector<scale_out::ServedTokens> served;

  // Whether rows go to, or came from, a rank; in combine they go the other way. Hosted calls.
  [[nodiscard]] bool sends_to(int peer) const { return table.rows_per_rank[static_cast<std::size_t>(peer)] > 0; }
  [[nodiscard]] bool receives_from(int peer) const {
    auto const at = static_cast<std::size_t>(peer);
    return placement.recv_rows_end[at] > (at > 0 ? placement.recv_rows_end[at - 1] : 0);
  }

  // CUDA engine on one node: the same in GPU memory; see DeviceHandleLayout. `table` is then empty.
  std::byte* device = nullptr;
  TensorView recv_counts{};  // a part of it; see Handle
  int width = 0;             // the most routes that a token has
  bool counted = false;      // `placement` is known
  bool worst = false;        // the dispatch did not wait for counts
  std::shared_ptr<void> device_owner;
  std::vector<Round> rounds;  // not empty: the dispatch ran in rounds, and the whole has nothing in GPU memory
  RoundRoom room;             // where these rounds have their rows: cached dispatches and combines use the same
};

}  // namespace switchyard::detail
