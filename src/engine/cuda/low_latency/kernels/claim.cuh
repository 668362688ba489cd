// Low-latency dispatch, expert_major: rows are claimed at the experts' ranks, all rows of an expert at once. Blocks
// share the experts, and tell one another where rows begin by words that hold the epoch as well: no barrier between
// blocks, and nothing to set back.
#pragma once

#include "engine/cuda/low_latency/kernels/count.cuh"

namespace switchyard::cuda {

__device__ inline std::uint64_t* bases_of(SlotArgs const& args) {
  return slot_part<std::uint64_t>(args, args.peers.rank, args.at.bases) +
         static_cast<std::size_t>(args.frame) * static_cast<std::size_t>(args.experts.num_experts());
}

// A thread's expert, and what it has asked its owner for.
struct Claim {
  int expert;  // num_experts or more: none
  int owner;
  std::uint32_t count;
  std::uint32_t base;  // not there yet, perhaps
  bool reachable;
};

// Loads and additions only, which need not be there when it returns.
__device__ inline Claim ask_for_rows(SlotArgs const& args, StreamRows const& rows, int expert,
                                     std::uint64_t masked) {
  Claim asked{.expert = expert, .owner = 0, .count = 0, .base = 0, .reachable = false};
  if (expert >= args.experts.num_experts()) return asked;
  asked.owner = args.owners.rank_of(expert);
  asked.reachable = (masked >> asked.owner & 1) == 0;
  asked.count = rows.total_of(expert);
  // Relaxed: the credit that this rank has acquired comes after the zero; the receiver reads it after the words of
  // this call.
  if (asked.reachable && asked.count > 0)
    asked.base = ptx::add_relaxed(
        claims_of(args, asked.owner, args.frame) + (expert - args.experts.first(asked.owner)), asked.count);
  return asked;
}

// What cannot be: the owner's word is not what it should be.
static __device__ __noinline__ void report_claim(SlotArgs const& args, Claim const& claim) {
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .phase = Phase::slots_claim,
          .peer = claim.owner,
          .expected = static_cast<std::uint64_t>(args.rows_of_expert()),
          .seen = static_cast<std::uint64_t>(claim.base) + claim.count});
}

// Tells the other blocks, and the owner which rows are whose: also when there are none, since an old range may lie
// there.
__device__ inline void settle_claim(SlotArgs const& args, std::uint64_t epoch, Claim const& claim, int* failed) {
  if (claim.expert >= args.experts.num_experts()) return;
  std::uint32_t base = claim.reachable ? claim.base : no_base;
  if (claim.reachable && static_cast<std::int64_t>(claim.base) + claim.count > args.rows_of_expert()) {
    report_claim(args, claim);
    base = no_base;
    *failed = 1;
  }
  // Pairs with the load_relaxed() in await_base(): it carries its value with it.
  ptx::store_relaxed(bases_of(args) + claim.expert, epoch << 32 | base);
  if (!claim.reachable) return;
  std::int64_t* const ranges = frame_part<std::int64_t>(args, claim.owner, args.at.ranges);
  std::int64_t const range = base == no_base ? 0 : static_cast<std::int64_t>(base) << 32 | claim.count;
  ranges[static_cast<std::int64_t>(claim.expert - args.experts.first(claim.owner)) * args.peers.num_ranks +
         args.peers.rank] = range;
}

// By all threads of a block: the first of each thread's experts; none in rank_major.
__device__ inline Claim ask_for_first_rows(SlotArgs const& args, StreamRows const& rows, std::uint64_t masked) {
  auto const first = static_cast<int>(blockIdx.x + gridDim.x * threadIdx.x);
  return ask_for_rows(args, rows, args.rank_major ? args.experts.num_experts() : first, masked);
}

// By all threads of a block: settles the first one's claim, and claims and settles those of its other experts.
__device__ inline void claim_rows(SlotArgs const& args, StreamRows const& rows, Claim claim, std::uint64_t epoch,
                                  std::uint64_t masked) {
  int const step = static_cast<int>(gridDim.x) * slot_threads;
#pragma unroll 1
  while (claim.expert < args.experts.num_experts()) {
    settle_claim(args, epoch, claim, rows.failed);
    claim = ask_for_rows(args, rows, claim.expert + step, masked);
  }
}

// What the block in charge of the expert has claimed; no_base: nothing is sent there.
__device__ inline std::uint32_t await_base(SlotArgs const& args, std::uint64_t epoch, int expert, int* failed) {
  std::uint64_t const* const word = bases_of(args) + expert;
  auto const tag = static_cast<std::uint32_t>(epoch);
  std::uint64_t begin = 0;
#pragma unroll 1
  for (unsigned turn = 1;; ++turn) {
    std::uint64_t const seen = ptx::load_relaxed(word);  // pairs with the store_relaxed() in settle_claim()
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
