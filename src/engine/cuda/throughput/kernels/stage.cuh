// Stage: tensors that peers cannot read where they lie are copied into the own heap. Then each rank publishes where
// its tensors are, and reads where those of its peers are.
#pragma once

#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/throughput/kernels/agree.cuh"
#include "engine/cuda/throughput/kernels/routes.cuh"
#include "engine/cuda/throughput/kernels/rows.cuh"

namespace switchyard::cuda {

struct RowRange {
  std::int64_t begin;
  std::int64_t end;

  [[nodiscard]] __device__ std::int64_t count() const { return end - begin; }
  // The i-th of the rows that are not in the range.
  [[nodiscard]] __device__ std::int64_t skip(std::int64_t i) const { return i < begin ? i : i + count(); }
};

// Rows of a combine that this rank pulls from itself, so that they need not be staged.
__device__ inline RowRange own_rows(CombineKernelArgs const& args) {
  if (!args.own_in_place) return {0, 0};
  int const rank = args.peers.rank;
  return {rank > 0 ? args.handle.recv_ends[rank - 1] : 0, args.handle.recv_ends[rank]};
}

__device__ inline bool needs_staging(SourceTensor const& tensor) {
  return tensor.data != nullptr && tensor.stage;
}

// All warps of the kernel share the rows. Rows `own` are left out.
__device__ inline void stage_tensor(CombineKernelArgs const& args, SourceTensor const& tensor,
                                    RowRange const& own) {
  if (!needs_staging(tensor)) return;
  std::byte* const to = heap_of(args.peers, args.peers.rank) + tensor.heap_offset;
  int const warps = static_cast<int>(blockDim.x / 32);
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * warps;
  for (std::int64_t i = blockIdx.x * warps + threadIdx.x / 32; i < args.rows - own.count(); i += step) {
    std::int64_t const row = own.skip(i);
    copy_row(tensor.data + row * tensor.row_stride, to + row * tensor.row_bytes, tensor.row_bytes);
  }
}

// All threads of every block call this. It returns true in all threads of the block that publishes for the rank:
// the one whose staging ends last. Where nothing is staged no block waits for another, since what peers will read
// was written by earlier kernels.
__device__ inline bool stage_phase(CombineKernelArgs const& args) {
  if (!needs_staging(args.x) && !needs_staging(args.weights) && !needs_staging(args.row_weights))
    return blockIdx.x == 0;
  stage_tensor(args, args.x, own_rows(args));
  stage_tensor(args, args.weights, {0, 0});
  stage_tensor(args, args.row_weights, {0, 0});
  return is_last_block<Readers::peers>(&state_of(args.peers)->blocks_opened);
}

// Threads 0..num_ranks-1 of one block publish to a peer each.
__device__ inline void publish_sources(CombineKernelArgs const& args, std::uint64_t epoch) {
  if (static_cast<int>(threadIdx.x) >= args.peers.num_ranks) return;
  DeviceAnnounce* const to = announce_of(args.peers, static_cast<int>(threadIdx.x), args.peers.rank);
  to->digest = args.digest;
  to->x_offset = args.x.heap_offset;
  to->weights_offset = args.weights.heap_offset;
  to->row_weights_offset = args.row_weights.heap_offset;
  signal_peer(args.waiting, &to->epoch, epoch);  // pairs with the load_acquire() in wait_flag()
}

// Digests agree, so a peer has a tensor if this rank has one. An offset that a peer wrote must leave room for all
// rows of that peer. The -1 of a peer that has none is the largest offset of all, so it leaves no room.
__device__ inline bool inside_heap(CombineKernelArgs const& args, int peer, SourceTensor const& mine,
                                   std::int64_t offset) {
  if (mine.data == nullptr) return true;
  auto const at = static_cast<std::uint64_t>(offset);
  if (at % sizeof(float) != 0 && mine.row_bytes % sizeof(float) == 0) return false;
  std::uint64_t const bytes = static_cast<std::uint64_t>(args.handle.rows_of_rank[peer]) * mine.row_bytes;
  std::uint64_t const heap = args.peers.heap_bytes[peer];
  return at <= heap && bytes <= heap - at;
}

// Reads the offsets of a peer once, so that the values that were checked are the values that are used.
__device__ inline bool read_source(CombineKernelArgs const& args, int peer, SourceRows& from) {
  DeviceAnnounce const* const from_peer = announce_of(args.peers, args.peers.rank, peer);
  std::int64_t const x = from_peer->x_offset;
  std::int64_t const weights = from_peer->weights_offset;
  std::int64_t const row_weights = from_peer->row_weights_offset;
  if (!inside_heap(args, peer, args.x, x) || !inside_heap(args, peer, args.weights, weights) ||
      !inside_heap(args, peer, args.row_weights, row_weights)) {
    report(args.peers, args.waiting,
           {.state = 0,
            .kind = TroubleKind::broken,
            .point = WaitPoint::combine_announce,
            .peer = peer,
            .expected = args.peers.heap_bytes[peer],
            .seen = static_cast<std::uint64_t>(x)});
    return false;
  }
  std::byte const* const heap = heap_of(args.peers, peer);
  bool const in_place = args.own_in_place && peer == args.peers.rank;
  from = {.x = in_place ? args.x.data : heap + x,
          .stride = in_place ? args.x.row_stride : args.x.row_bytes,
          .weights = heap + weights,
          .row_weights = reinterpret_cast<float const*>(heap + row_weights),
          .rows = args.handle.rows_of_rank[peer]};
  return true;
}

// All threads of every block call this. `publishes` holds in one block. Returns false in all threads of the block
// when the call has failed.
__device__ inline bool source_phase(CombineKernelArgs const& args, std::uint64_t epoch, bool publishes,
                                    SourceRows* sources) {
  if (publishes) publish_sources(args, epoch);
  if (!wait_for_flags(args.peers, args.waiting, args.peers.control.announces, epoch, WaitPoint::combine_announce))
    return false;
  if (!digests_agree(args.peers, args.waiting, args.digest)) return false;
  bool failed = false;
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks)
    failed = !read_source(args, static_cast<int>(threadIdx.x), sources[threadIdx.x]);
  return !any_thread(failed);
}

}  // namespace switchyard::cuda
