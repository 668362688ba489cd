// Place: from the counts of all sources to the first row of each stream; as layout/placement.cpp does on the host.
// One block.
#pragma once

#include <cub/block/block_scan.cuh>

#include "engine/cuda/phases/answer.cuh"

namespace switchyard::cuda {

using Scan = cub::BlockScan<int, layout_threads>;

// A count that came from outside; one that cannot be makes the call fail.
__device__ inline int checked_count(NotifyArgs const& args, int source, int slot) {
  std::int64_t const count = counts_of(args.peers, args.peers.rank, source)[slot];
  if (count >= 0 && count <= args.max_count) return static_cast<int>(count);
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .phase = Phase::announce,
          .peer = source,
          .expected = static_cast<std::uint64_t>(args.max_count),
          .seen = static_cast<std::uint64_t>(count)});
  return 0;
}

// By source, then by token. Returns the rows, in all threads.
__device__ inline std::int64_t place_flat(NotifyArgs const& args) {
  __shared__ typename Scan::TempStorage space;
  int const source = static_cast<int>(threadIdx.x);
  bool const one = source < args.peers.world;
  int const count = one ? checked_count(args, source, 0) : 0;
  int start = 0;
  int total = 0;
  Scan(space).ExclusiveSum(count, start, total);
  if (one) {
    if (!args.handle.expanded) starts_of(args.peers, source, args.peers.rank)[0] = start;
    args.waiting.mailbox->recv_rows_end[source] = start + count;
  }
  __syncthreads();
  return total;
}

// By local expert (aligned), then by source, then by token. Also says how many rows each expert has.
__device__ inline std::int64_t place_experts(NotifyArgs const& args) {
  __shared__ typename Scan::TempStorage space;
  int const local = args.experts.count(args.peers.rank);
  auto* const padded_out = reinterpret_cast<std::int64_t*>(args.waiting.mailbox + 1);
  auto* const real_out = padded_out + args.experts.max_count();
  int begin = 0;
  for (int tile = 0; tile < local; tile += layout_threads) {
    int const expert = tile + static_cast<int>(threadIdx.x);
    bool const one = expert < local;
    int real = 0;
#pragma unroll 8
    for (int source = 0; source < args.peers.world; ++source)
      real += one ? checked_count(args, source, 1 + expert) : 0;
    int const padded = (real + args.alignment - 1) / args.alignment * args.alignment;
    int start = 0;
    int total = 0;
    Scan(space).ExclusiveSum(padded, start, total);
    start += begin;
    if (one) {
      args.handle.padded[expert] = padded;
      args.handle.real[expert] = real;
      padded_out[expert] = padded;
      real_out[expert] = real;
    }
    for (int source = 0; one && args.handle.expanded && source < args.peers.world; ++source) {
      starts_of(args.peers, source, args.peers.rank)[1 + expert] = start;
      start += counts_of(args.peers, args.peers.rank, source)[1 + expert];
    }
    begin += total;
    __syncthreads();
  }
  return begin;
}

__device__ inline void place_phase(NotifyArgs const& args, std::uint64_t epoch) {
  std::int64_t const flat_rows = place_flat(args);
  std::int64_t const expanded_rows = args.handle.top_k > 0 ? place_experts(args) : 0;
  std::int64_t const rows = args.handle.expanded ? expanded_rows : flat_rows;
  __syncthreads();
  if (args.has_block)
    tell_answers(args.peers, epoch, {args.block_offset, args.worst_rows > 0 ? args.worst_rows : rows});
  if (threadIdx.x != 0) return;
  *args.handle.rows = rows;
  args.waiting.mailbox->rows = rows;
  if (args.worst_rows > 0 && rows > args.worst_rows)
    report(args.peers, args.waiting,
           {.state = 0,
            .kind = TroubleKind::too_few_rows,
            .phase = Phase::announce,
            .peer = args.peers.rank,
            .expected = static_cast<std::uint64_t>(rows),
            .seen = static_cast<std::uint64_t>(args.worst_rows)});
}

}  // namespace switchyard::cuda
