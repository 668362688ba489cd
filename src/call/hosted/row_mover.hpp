// What moves the rows of a throughput call whose rounds the hosts make: threads of this process, or a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "call/hosted/crossing.hpp"
#include "call/throughput.hpp"
#include "control/signals.hpp"
#include "layout/receive_block.hpp"
#include "layout/scale_out/placed_tokens.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard {

// Where a receiver's result lies, as this rank maps it. Null pointers: the receiver is on another node.
struct Destination {
  std::byte* x = nullptr;
  std::byte* scales = nullptr;
  std::byte* topk_idx = nullptr;
  std::byte* topk_weights = nullptr;
  std::byte* source_token = nullptr;
  int first_expert = 0;
  int local_experts = 0;
};

// The first rows of one source's streams, by local rank, then by stream: [0] of the rank, [1 + e] of its experts.
using FirstRows = std::vector<std::vector<std::int64_t>>;

// Where the expert outputs of a rank of this node lie, as this rank maps them; null: not given.
struct SourceRows {
  std::byte const* x = nullptr;
  float const* weights = nullptr;
  float const* row_weights = nullptr;
};

// A dispatch whose rows all have their places. All of it outlives place().
struct PlaceTask {
  Signals& signals;
  Crossing* crossing;  // null in a job of one node
  DispatchCall const& call;
  std::vector<Destination> const& destinations;  // by rank of the job
  std::vector<FirstRows> const& first_rows;      // by rank that is served; of a dispatch that is not cached
  std::vector<scale_out::ServedTokens>* placed;  // is filled in, counts first; null: cached, as the handle says
  int rank = 0;                                  // of the job
  std::uint64_t epoch = 0;
  std::int64_t max_tokens = 0;
};

// A combine whose inputs all have been announced. All of it outlives pull().
struct PullTask {
  Signals& signals;
  Crossing* crossing;  // null in a job of one node
  CombineCall const& call;
  std::vector<SourceRows> const& sources;  // by rank of the job
  int rank = 0;                            // of the job
  std::uint64_t epoch = 0;
  bool f32_partials = false;
};

// One thread calls it, in the calls of its buffer. What it throws fails the buffer, unless all ranks throw it.
class RowMover {
 public:
  RowMover() = default;
  virtual ~RowMover() = default;
  RowMover(RowMover const&) = delete;
  RowMover& operator=(RowMover const&) = delete;

  // Memory of the heap that rows go to; nothing when there is none.
  [[nodiscard]] virtual std::optional<SymmetricHeap::Block> take(std::size_t bytes) = 0;
  // Copies a tensor's rows to memory without gaps. Peers may read them when it returns.
  virtual void stage(ConstTensorView const& view, std::byte* to, int workers) = 0;
  // Writes this rank's rows for its node into the receivers' results, and the padding of its own. With other nodes
  // it also sends them theirs, and places what comes for ranks of this node, until all has left and all has come,
  // or another node refuses. Peers may read what it wrote when it returns.
  virtual void place(PlaceTask const& task) = 0;
  // Sums the rows of this rank's tokens into the call's outputs. With other nodes it also sends back what it has
  // placed for their ranks, and adds what they bring. Nothing reads a peer's rows any more when it returns.
  virtual void pull(PullTask const& task) = 0;
};

// The parts of a result that begins at `block`.
Destination destination_at(std::byte* block, ReceiveShape const& shape);

}  // namespace switchyard
