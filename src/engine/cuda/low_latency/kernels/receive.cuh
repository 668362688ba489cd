// Low-latency dispatch, receive half: one block waits until all rows have arrived, and counts them.
#pragma once

#include "engine/cuda/low_latency/kernels/sources.cuh"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// rank_major: threads 0..num_ranks-1 load how many rows their source has sent, with the epoch above it.
__device__ inline std::uint64_t rows_word(SlotDispatchArgs const& args) {
  int const source = static_cast<int>(threadIdx.x);
  if (!args.rank_major || source >= args.peers.num_ranks) return 0;
  // Pairs with the store_relaxed() in publish_counts(), which comes before the words of the source.
  return ptx::load_relaxed(&frame_flag(args, args.at.arrived, args.frame, args.peers.rank, source)->rows);
}

// A masked source has sent nothing that counts, but an old range may lie there.
__device__ inline void clear_ranges_of(SlotArgs const& args, LocalRankMask masked) {
  int const num_ranks = args.peers.num_ranks;
  auto* const ranges = own_part<std::int64_t>(args, args.at.ranges);
  int const local = args.experts.count(args.peers.rank);
  for (int i = static_cast<int>(threadIdx.x); i < local * num_ranks; i += static_cast<int>(blockDim.x)) {
    if ((masked >> (i % num_ranks) & 1) != 0) ranges[i] = 0;
  }
  __syncthreads();
}

__device__ inline void count_by_expert(SlotDispatchArgs const& args) {
  int const num_ranks = args.peers.num_ranks;
  int const local = args.experts.count(args.peers.rank);
  auto const* const ranges = own_part<std::int64_t>(args, args.at.ranges);
  auto* const counts = own_part<std::int32_t>(args, args.at.counts);
  std::uint32_t const* const claims = claims_of(args, args.peers.rank, args.frame);
  for (int expert = static_cast<int>(threadIdx.x); expert < local; expert += static_cast<int>(blockDim.x)) {
    // Relaxed: the load pairs with the sources' additions in start_claim(), which come before their words, and this
    // block has acquired those. Rows that a masked source claimed and never wrote count, because others lie behind
    // them.
    auto const count = static_cast<std::int32_t>(
        min(static_cast<std::int64_t>(ptx::load_relaxed(claims + expert)), args.rows_of_expert()));
    counts[expert] = count;
    if (args.counts != nullptr) args.counts[expert] = count;
    if (args.received_per_expert == nullptr) continue;
    std::int32_t received = 0;
    for (int source = 0; source < num_ranks; ++source)
      received += static_cast<std::int32_t>(ranges[expert * num_ranks + source] & 0xffffffff);
    args.received_per_expert[expert] += received;
  }
}

// rank_major: counts by the ids that came with the rows. A token that has an expert twice counts once.
__device__ inline void add_received(SlotDispatchArgs const& args, int source, std::int64_t rows) {
  auto const* const ids = own_part<std::int32_t>(args, args.at.topk_idx) + source * args.max_tokens * args.top_k;
#pragma unroll 1
  for (std::int64_t i = threadIdx.x; i < rows * args.top_k; i += blockDim.x) {
    std::int32_t const expert = ids[i];
    bool counts = expert >= 0;
    for (std::int64_t before = i - i % args.top_k; before < i; ++before) counts &= ids[before] != expert;
    // A peer wrote the id, so it is checked.
    if (counts && expert < args.experts.count(args.peers.rank)) atomicAdd(args.received_per_expert + expert, 1);
  }
}

// `rows` is what the source of this thread has published.
__device__ inline void count_by_source(SlotDispatchArgs const& args, LocalRankMask masked, std::uint32_t rows) {
  auto* const counts = own_part<std::int32_t>(args, args.at.counts);
  int const source = static_cast<int>(threadIdx.x);
  if (source < args.peers.num_ranks) {
    bool const there = (masked >> source & 1) == 0;
    // A peer wrote the number, so it is bounded.
    auto const count = there ? static_cast<std::int32_t>(min(static_cast<std::int64_t>(rows), args.max_tokens)) : 0;
    counts[source] = count;
    if (args.counts != nullptr) args.counts[source] = count;
  }
  if (args.received_per_expert == nullptr) return;
  __syncthreads();
#pragma unroll 1
  for (int each = 0; each < args.peers.num_ranks; ++each) add_received(args, each, counts[each]);
}

// All threads of one block call this.
__device__ inline void receive_rows(SlotDispatchArgs const& args, std::uint64_t epoch) {
  std::uint64_t const early = rows_word(args);
  PeerStatus const all = wait_for_sources(args, args.frame, word_of_call(args, epoch), true);
  if (all.failed) return;
  if (threadIdx.x == 0) frame_state(args, args.frame)->received = epoch;
  if (args.rank_major) {
    // The second load finds it for sure: it was stored before the words that have been acquired.
    std::uint64_t const word = early >> 32 == (epoch & 0xffffffff) ? early : rows_word(args);
    return count_by_source(args, all.masked, static_cast<std::uint32_t>(word));
  }
  if (all.masked != 0) clear_ranges_of(args, all.masked);
  count_by_expert(args);
}

}  // namespace switchyard::cuda
