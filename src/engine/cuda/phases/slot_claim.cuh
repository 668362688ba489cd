// Low-latency dispatch, expert_major: rows are claimed at the experts' ranks, all rows of an expert at once. Blocks
// share the experts, and tell one another where rows begin by words that hold the epoch as well: no barrier between
// blocks, and nothing to set back.
#pragma once

#include "engine/cuda/phases/slot_count.cuh"

namespace switchyard::cuda {

__device__ inline std::uint64_t* bases_of(SlotArgs const& args) {
  return slot_part<std::uint64_t>(args, args.peers.rank, args.at.bases) +
         static_cast<std::size_t>(args.frame) * static_cast<std::size_t>(args.experts.num_experts());
}

// Where `count` rows of the expert begin; no_base when what the owner's word says cannot be.
__device__ inline std::uint32_t claim(SlotArgs const& args, int expert, int owner, std::uint32_t count) {
  int const local = expert - args.experts.first(owner);
  // Relaxed: the credit that this rank has acquired comes after the zero; the receiver reads it after the flag.
  std::uint32_t const base = ptx::add_relaxed(claims_of(args, owner, args.frame) + local, count);
  if (static_cast<std::int64_t>(base) + count <= args.rows_of_expert()) return base;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .phase = Phase::slots_claim,
          .peer = owner,
          .expected = static_cast<std::uint64_t>(args.rows_of_expert()),
          .seen = static_cast<std::uint64_t>(base) + count});
  return no_base;
}

// By all threads of a block. Every expert's range is written, also an empty one: an old one may lie there.
__device__ inline void claim_rows(SlotArgs const& args, std::uint64_t epoch, StreamCounts const& counts,
                                  std::uint64_t masked) {
  int const rank = args.peers.rank;
  int const step = static_cast<int>(gridDim.x) * slot_threads;
  for (int expert = static_cast<int>(blockIdx.x + gridDim.x * threadIdx.x); expert < args.experts.num_experts();
       expert += step) {
    int const owner = args.experts.rank_of(expert);
    bool const reachable = (masked >> owner & 1) == 0;
    std::uint32_t const count = counts.total[expert];
    std::uint32_t const base = !reachable ? no_base : count == 0 ? 0 : claim(args, expert, owner, count);
    if (reachable && base == no_base) *counts.failed = 1;
    // Pairs with the load_relaxed() in await_base(): it carries its value with it.
    ptx::store_relaxed(bases_of(args) + expert, epoch << 32 | base);
    if (!reachable) continue;
    std::int64_t* const ranges = frame_part<std::int64_t>(args, owner, args.at.ranges);
    std::int64_t const range = base == no_base ? 0 : static_cast<std::int64_t>(base) << 32 | count;
    ranges[static_cast<std::int64_t>(expert - args.experts.first(owner)) * args.peers.world + rank] = range;
  }
}

// What the block in charge of the expert has claimed; no_base: nothing is sent there.
__device__ inline std::uint32_t await_base(SlotArgs const& args, std::uint64_t epoch, int expert, int* failed) {
  std::uint64_t const* const word = bases_of(args) + expert;
  auto const tag = static_cast<std::uint32_t>(epoch);
  constexpr unsigned turns_between_looks = 256;
  std::uint64_t begin = 0;
#pragma unroll 1
  for (unsigned turn = 1;; ++turn) {
    std::uint64_t const seen = ptx::load_relaxed(word);  // pairs with the store_relaxed() in claim_rows()
    if (static_cast<std::uint32_t>(seen >> 32) == tag) return static_cast<std::uint32_t>(seen);
    if (turn % turns_between_looks != 0) continue;
    if (begin == 0) begin = ptx::global_timer();
    if (!has_failed(args.peers)) {
      // The block in charge may wait for a credit itself, as long as a wait may take, and once more.
      if (ptx::global_timer() - begin <= 3 * args.waiting.timeout_ns) continue;
      report(args.peers, args.waiting,
             {.state = 0,
              .kind = TroubleKind::timeout,
              .phase = Phase::slots_claim,
              .peer = args.peers.rank,
              .expected = epoch,
              .seen = seen >> 32});
    }
    *failed = 1;
    return no_base;
  }
}

}  // namespace switchyard::cuda
