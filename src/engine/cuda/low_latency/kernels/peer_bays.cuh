// Low-latency dispatch: where the rows of this call go at each peer. The peer's credit says so: the thread that
// waits for it notes it for the block.
#pragma once

#include "engine/cuda/device/report.cuh"
#include "engine/cuda/low_latency/kernels/waiting.cuh"

namespace switchyard::cuda {

// In shared memory, by peer. Not set for peers that are masked.
struct PeerBays {
  std::byte* begin[max_node_ranks];
  int number[max_node_ranks];
};

// A part of a peer's bay.
template <typename T>
__device__ inline T* bay_part(PeerBays const& bays, int peer, std::size_t offset) {
  return reinterpret_cast<T*>(bays.begin[peer] + offset);
}

// The peer's credit names a bay that would end behind its heap.
static __device__ __noinline__ void report_bay(SlotArgs const& args, int peer, std::size_t end) {
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .point = WaitPoint::slots_credit,
          .peer = peer,
          .expected = args.peers.heap_bytes[peer],
          .seen = end});
}

// What wait_for_peers() does with a credit: `bays` gets the bay that it names.
struct NoteBay {
  SlotArgs const& args;
  PeerBays& bays;

  __device__ WaitResult operator()(int peer, std::uint64_t credit) const {
    int const bay = bay_of_credit(credit, args.frame);
    std::size_t const begin = args.at.bay(bay);
    // A peer wrote the number, so it is checked.
    std::size_t const end = begin + args.at.bay_bytes;
    if (end > args.peers.heap_bytes[peer]) {
      report_bay(args, peer, end);
      return WaitResult::failed;
    }
    bays.begin[peer] = slot_part<std::byte>(args, peer, begin);
    bays.number[peer] = bay;
    return WaitResult::arrived;
  }
};

}  // namespace switchyard::cuda
