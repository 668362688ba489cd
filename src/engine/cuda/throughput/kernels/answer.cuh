// Answer: each receiver publishes to each source where its rows go. Each source checks an answer before it uses it.
#pragma once

#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/throughput/kernels/agree.cuh"
#include "engine/cuda/throughput/kernels/routes.cuh"

namespace switchyard::cuda {

// A receiver that has no block for its rows answers with this offset.
inline constexpr std::uint64_t refused_offset = ~std::uint64_t{0};

struct AnswerToAll {
  std::uint64_t block_offset;
  std::int64_t rows;
};

// Threads 0..num_ranks-1 of one block answer a source each. The starts were written before, by this block or by an
// earlier kernel.
__device__ inline void publish_answers(NotifyKernelArgs const& args, std::uint64_t epoch,
                                       AnswerToAll const& answer) {
  if (static_cast<int>(threadIdx.x) >= args.peers.num_ranks) return;
  DeviceAnswer* const to = answer_of(args.peers, static_cast<int>(threadIdx.x), args.peers.rank);
  to->block_offset = answer.block_offset;
  to->rows = answer.rows;
  signal_peer(args.waiting, &to->epoch, epoch);  // pairs with the load_acquire() in wait_flag()
}

// Where a receiver's result lies in its heap, and where in it this rank's rows begin (flat layout).
struct BlockPlace {
  std::uint64_t offset;
  std::int64_t rows;
  int start;
};

// Checks what came from a peer. The caller has read it once, so that the values that were checked are the values
// that are used.
__device__ inline bool set_destination(DispatchKernelArgs const& args, int peer, BlockPlace const& place,
                                       Destination& to) {
  std::int64_t const rows = place.rows;
  std::uint64_t const offset = place.offset;
  ReceiveShape shape = args.shape;
  shape.rows = rows;
  std::uint64_t const heap = args.peers.heap_bytes[peer];
  // Rows are few enough for the products not to overflow.
  bool sane = offset % part_alignment == 0 && rows >= 0 && rows <= max_result_rows && offset <= heap;
  ReceiveBlock const parts = receive_block(shape);
  sane = sane && parts.bytes <= heap - offset;
  bool const cached = args.start == DispatchStart::cached;
  if (cached) sane = sane && rows == args.handle.rows_of_rank[peer];
  if (!sane) {
    TroubleKind const kind = offset == refused_offset ? TroubleKind::mismatch : TroubleKind::broken;
    report(args.peers, args.waiting,
           {.state = 0, .kind = kind, .point = WaitPoint::answer, .peer = peer, .expected = heap, .seen = offset});
    return false;
  }
  std::byte* const block = heap_of(args.peers, peer) + offset;
  to = {.x = block + parts.x,
        .scales = block + parts.scales,
        .topk_idx = block + parts.topk_idx,
        .topk_weights = block + parts.topk_weights,
        .source_token = block + parts.source_token,
        .rows = rows,
        .first_expert = args.experts.first(peer),
        .local_experts = args.experts.count(peer),
        .start = place.start};
  if (!cached && blockIdx.x == 0) args.handle.rows_of_rank[peer] = rows;
  return true;
}

__device__ inline bool read_answer(DispatchKernelArgs const& args, int peer, Destination& to) {
  DeviceAnswer const* const from = answer_of(args.peers, args.peers.rank, peer);
  int const start = args.handle.expanded ? 0 : starts_of(args.peers, args.peers.rank, peer)[0];
  return set_destination(args, peer, {from->block_offset, from->rows, start}, to);
}

// All threads of every block call this. Returns false in all threads of the block when a peer did not answer, or
// its answer does not hold.
__device__ inline bool answer_phase(DispatchKernelArgs const& args, std::uint64_t epoch,
                                    Destination* destinations) {
  if (!wait_for_flags(args.peers, args.waiting, args.peers.control.answers, epoch, WaitPoint::answer)) return false;
  bool failed = false;
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks) {
    int const peer = static_cast<int>(threadIdx.x);
    failed = !read_answer(args, peer, destinations[peer]);
  }
  return !any_thread(failed);
}

}  // namespace switchyard::cuda
