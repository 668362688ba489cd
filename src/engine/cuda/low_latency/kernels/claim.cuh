// Low-latency dispatch, expert_major: each rank claims rows at the experts' ranks, all its rows of an expert at
// once. The blocks of a kernel share the experts, and publish to each other where the claimed rows begin. Those
// words hold the epoch as well, so that blocks need no barrier and nothing has to be set back.
#pragma once

#include "engine/cuda/device/report.cuh"
#include "engine/cuda/device/wait.cuh"
#include "engine/cuda/low_latency/kernels/count.cuh"
#include "engine/cuda/low_latency/kernels/peer_bays.cuh"
#include "engine/cuda/low_latency/kernels/words.cuh"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// The first row of an expert to which nothing is sent.
inline constexpr std::uint32_t no_base = ~0U;

__device__ inline std::uint64_t* bases_of(SlotArgs const& args) {
  return slot_part<std::uint64_t>(args, args.peers.rank, args.at.bases) +
         static_cast<std::size_t>(args.frame) * static_cast<std::size_t>(args.experts.num_experts());
}

// What a send half knows when it may send.
struct SendState {
  std::uint64_t epoch;
  LocalRankMask masked;
  PeerBays const* bays;  // in shared memory; of peers that are not masked
};

// What a thread claims of an expert's rows.
struct Claim {
  int expert;  // num_experts or more: there is none
  int owner;
  std::uint32_t count;
  std::uint32_t base;  // its addition may still be under way
  bool reachable;
};

// Issues loads and the addition, which need not have completed when it returns.
__device__ inline Claim start_claim(SlotDispatchArgs const& args, StreamRows const& rows, int expert,
                                    LocalRankMask masked) {
  Claim claim{.expert = expert, .owner = 0, .count = 0, .base = 0, .reachable = false};
  if (expert >= args.experts.num_experts()) return claim;
  claim.owner = args.owners.rank_of(expert);
  claim.reachable = (masked >> claim.owner & 1) == 0;
  claim.count = rows.total_of(expert);
  // Relaxed: the credit that this rank has acquired comes after the owner's zero, and the owner reads the sum in
  // count_by_expert() after the words of this call.
  if (claim.reachable && claim.count > 0)
    claim.base = ptx::add_relaxed(
        claims_of(args, claim.owner, args.frame) + (expert - args.experts.first(claim.owner)), claim.count);
  return claim;
}

// The owner's word has a value that cannot be.
static __device__ __noinline__ void report_claim(SlotArgs const& args, Claim const& claim) {
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .point = WaitPoint::slots_claim,
          .peer = claim.owner,
          .expected = static_cast<std::uint64_t>(args.rows_of_expert()),
          .seen = static_cast<std::uint64_t>(claim.base) + claim.count});
}

// Publishes the base to the other blocks, and writes to the owner which rows are this rank's. The owner needs that
// for a count of 0, too, because an old range may lie there.
__device__ inline void finish_claim(SlotArgs const& args, SendState const& state, Claim const& claim, int* failed) {
  if (claim.expert >= args.experts.num_experts()) return;
  std::uint32_t base = claim.reachable ? claim.base : no_base;
  if (claim.reachable && static_cast<std::int64_t>(claim.base) + claim.count > args.rows_of_expert()) {
    report_claim(args, claim);
    base = no_base;
    *failed = 1;
  }
  // Relaxed: the word carries all there is. Pairs with the load_relaxed() in wait_for_base().
  ptx::store_relaxed(bases_of(args) + claim.expert, state.epoch << 32 | base);
  if (!claim.reachable) return;
  std::int64_t* const ranges = bay_part<std::int64_t>(*state.bays, claim.owner, args.at.ranges);
  std::int64_t const range = base == no_base ? 0 : static_cast<std::int64_t>(base) << 32 | claim.count;
  ranges[static_cast<std::int64_t>(claim.expert - args.experts.first(claim.owner)) * args.peers.num_ranks +
         args.peers.rank] = range;
}

// All threads of a block call this. Starts the claim of the first of each thread's experts; rank_major claims
// nothing.
__device__ inline Claim start_first_claim(SlotDispatchArgs const& args, StreamRows const& rows,
                                          LocalRankMask masked) {
  auto const first = static_cast<int>(blockIdx.x + gridDim.x * threadIdx.x);
  return start_claim(args, rows, args.rank_major ? args.experts.num_experts() : first, masked);
}

// All threads of a block call this. Finishes the first claim, and makes those of the thread's other experts.
__device__ inline void finish_claims(SlotDispatchArgs const& args, StreamRows const& rows, Claim claim,
                                     SendState const& state) {
  int const step = static_cast<int>(gridDim.x) * slot_threads;
#pragma unroll 1
  while (claim.expert < args.experts.num_experts()) {
    finish_claim(args, state, claim, rows.failed);
    claim = start_claim(args, rows, claim.expert + step, state.masked);
  }
}

// The first row that the block in charge of the expert has claimed, or no_base.
__device__ inline std::uint32_t wait_for_base(SlotArgs const& args, std::uint64_t epoch, int expert, int* failed) {
  std::uint64_t const* const word = bases_of(args) + expert;
  auto const tag = static_cast<std::uint32_t>(epoch);
  std::uint64_t begin = 0;
#pragma unroll 1
  for (unsigned poll = 1;; ++poll) {
    std::uint64_t const seen = ptx::load_relaxed(word);  // pairs with the store_relaxed() in finish_claim()
    if (static_cast<std::uint32_t>(seen >> 32) == tag) return static_cast<std::uint32_t>(seen);
    if (poll % polls_between_checks != 0) continue;
    if (begin == 0) begin = ptx::global_timer();
    if (!has_failed(args.peers)) {
      // The block in charge may itself wait for a credit, for two deadlines at most.
      if (ptx::global_timer() - begin <= 3 * args.waiting.timeout_ns) continue;
      report(args.peers, args.waiting,
             {.state = 0,
              .kind = TroubleKind::timeout,
              .point = WaitPoint::slots_claim,
              .peer = args.peers.rank,
              .expected = epoch,
              .seen = seen >> 32});
    }
    *failed = 1;
    return no_base;
  }
}

}  // namespace switchyard::cuda
