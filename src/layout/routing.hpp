// What a dispatch leaves behind for its combine and for cached dispatches: the inside of a Handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "layout/placement.hpp"
#include "layout/routes.hpp"
#include "layout/row_merge.hpp"
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
  std::uint64_t buffer_id = 0;  // of the segment that the rows lie in
  std::uint64_t dispatch = 0;   // epoch of the dispatch, the same on all ranks
  OutputLayout layout = OutputLayout::flat;
  int rank = 0;                 // this rank
  std::int64_t num_tokens = 0;  // N of this rank
  std::int64_t top_k = 0;       // 0: routed by token_in_rank
  int expert_alignment = 1;

  // Sending side: where this rank's tokens lie, rows final.
  RouteTable table;
  std::vector<std::int64_t> rows_of_rank;  // [R] rows that each rank's result has

  // Receiving side.
  Placement placement;

  // CUDA engine: the same in GPU memory; see DeviceHandleLayout. `table` is then empty.
  std::byte* device = nullptr;
  TensorView recv_counts{};  // in it; see Handle
  int width = 0;             // most routes of a token
  bool counted = false;      // `placement` is known
  bool worst = false;        // of a dispatch that did not wait for counts
  std::shared_ptr<void> device_owner;
  std::vector<Round> rounds;  // not empty: it ran in rounds; the whole has nothing in GPU memory
  RoundRoom room;             // of these rounds: cached dispatches and combines find it as the dispatch left it
};

}  // namespace switchyard::detail
