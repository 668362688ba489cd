// Agree: each rank announces a digest of what it was asked to do, and compares those of all peers with its own.
#pragma once

#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/throughput/args.hpp"

namespace switchyard::cuda {

// A bad id turns the call into a refusal. The load pairs with the atomicMin() in checked_expert().
__device__ inline std::uint64_t digest_to_announce(NotifyKernelArgs const& args) {
  return ptx::load_relaxed(&state_of(args.peers)->bad_id) == ~std::uint64_t{0} ? args.digest : 0;
}

// Threads 0..num_ranks-1 of one block announce to a peer each. `block_rows` is as in DeviceAnnounce.
__device__ inline void announce_dispatch(NotifyKernelArgs const& args, std::uint64_t epoch, std::uint64_t digest,
                                         std::int64_t block_rows) {
  if (static_cast<int>(threadIdx.x) >= args.peers.num_ranks) return;
  DeviceAnnounce* const to = announce_of(args.peers, static_cast<int>(threadIdx.x), args.peers.rank);
  to->digest = digest;
  to->has_block = args.has_block ? 1 : 0;
  to->block_offset = args.block_offset;
  to->block_rows = block_rows;
  signal_peer(args.waiting, &to->epoch, epoch);  // pairs with the load_acquire() in wait_flag()
}

// Compares digests when all announces have arrived. Returns false in all threads when a peer makes another call or
// refuses; every rank finds that in the same call.
__device__ inline bool digests_agree(Peers const& peers, Waiting const& waiting, std::uint64_t digest) {
  bool differs = false;
  if (static_cast<int>(threadIdx.x) < peers.num_ranks) {
    int const peer = static_cast<int>(threadIdx.x);
    std::uint64_t const theirs = announce_of(peers, peers.rank, peer)->digest;
    differs = theirs != digest || theirs == 0;
    if (differs)
      report(peers, waiting,
             {.state = 0,
              .kind = TroubleKind::mismatch,
              .point = WaitPoint::announce,
              .peer = peer,
              .expected = digest,
              .seen = theirs});
  }
  return !any_thread(differs);
}

// Returns true in all threads when the announces of all ranks, this one among them, have arrived and agree. One
// block `speaks` for the rank. The others wait twice as long, so that its deadline ends first and names the cause.
__device__ inline bool hear_peers(NotifyKernelArgs const& args, std::uint64_t epoch, bool speaks) {
  Waiting waiting = args.waiting;
  if (!speaks) waiting.timeout_ns *= 2;
  return wait_for_flags(args.peers, waiting, args.peers.control.announces, epoch, WaitPoint::announce) &&
         digests_agree(args.peers, waiting, args.digest);
}

// Does every peer have a block before the counts are known? If not, a peer may still refuse.
__device__ inline bool all_have_blocks(Peers const& peers) {
  bool lacks = false;
  if (static_cast<int>(threadIdx.x) < peers.num_ranks)
    lacks = announce_of(peers, peers.rank, static_cast<int>(threadIdx.x))->has_block == 0;
  return !any_thread(lacks);
}

}  // namespace switchyard::cuda
