// Notify: one block sums up what all blocks counted, tells every receiver, and hears from every source.
#pragma once

#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/throughput/kernels/count.cuh"

namespace switchyard::cuda {

// Of one stream: counts of blocks become first numbers. Returns the sum.
__device__ inline std::int32_t number_blocks(std::int32_t* counts, int blocks, int streams) {
  constexpr int together = 16;  // loads before the first store: one round trip to memory instead of one a block
  std::int32_t total = 0;
  for (int first = 0; first < blocks; first += together) {
    std::int32_t of_block[together];
#pragma unroll
    for (int i = 0; i < together; ++i) of_block[i] = first + i < blocks ? counts[i * streams] : 0;
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (first + i < blocks) counts[i * streams] = total;
      total += of_block[i];
    }
    counts += together * streams;
  }
  return total;
}

// The sums go to the receivers.
__device__ inline void send_counts(NotifyArgs const& args) {
  int const num_ranks = args.peers.num_ranks;
  int const streams = num_ranks + args.experts.num_experts();
  std::int32_t* const counts = block_counts_of(args.peers);
  for (int stream = static_cast<int>(threadIdx.x); stream < streams; stream += layout_threads) {
    std::int32_t const total = number_blocks(counts + stream, args.cut.blocks, streams);
    int const expert = stream - num_ranks;
    int const peer = expert < 0 ? stream : args.experts.rank_of(expert);
    int const slot = expert < 0 ? 0 : 1 + expert - args.experts.first(peer);
    counts_of(args.peers, peer, args.peers.rank)[slot] = total;
  }
  __syncthreads();
}

// A bad id turns the call into a refusal.
__device__ inline std::uint64_t digest_to_tell(NotifyArgs const& args) {
  return ptx::load_relaxed(&state_of(args.peers)->bad_id) == ~std::uint64_t{0} ? args.digest : 0;
}

__device__ inline void announce_digest(Peers const& peers, std::uint64_t epoch, std::uint64_t digest,
                                       bool has_block) {
  if (static_cast<int>(threadIdx.x) >= peers.num_ranks) return;
  DeviceAnnounce* const to = announce_of(peers, static_cast<int>(threadIdx.x), peers.rank);
  to->digest = digest;
  to->has_block = has_block ? 1 : 0;
  ptx::store_release(&to->epoch, epoch);  // pairs with the load_acquire() in wait_for_peers()
}

// False, in all threads, when a peer makes another call or refuses; every rank finds so in the same call.
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
              .phase = Phase::announce,
              .peer = peer,
              .expected = digest,
              .seen = theirs});
  }
  return !any_thread(differs);
}

// Announces of all peers are there and agree.
__device__ inline bool agree(NotifyArgs const& args, std::uint64_t epoch, std::uint64_t digest) {
  announce_digest(args.peers, epoch, digest, args.has_block);
  return wait_for_peers(args.peers, args.waiting, args.peers.control.announces, epoch, Phase::announce) &&
         digests_agree(args.peers, args.waiting, digest);
}

// Does every peer answer without asking its host? Otherwise it may yet refuse.
__device__ inline bool all_have_blocks(Peers const& peers) {
  bool lacks = false;
  if (static_cast<int>(threadIdx.x) < peers.num_ranks)
    lacks = announce_of(peers, peers.rank, static_cast<int>(threadIdx.x))->has_block == 0;
  return !any_thread(lacks);
}

}  // namespace switchyard::cuda
