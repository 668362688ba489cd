// The segments of all ranks, as kernels take them.
#pragma once

#include "engine/cuda/host/args.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard::cuda {

inline Peers peers_of(SymmetricHeap const& heap, DeviceControlLayout const& control) {
  Peers peers{};
  peers.control = control;
  peers.rank = heap.rank();
  peers.num_ranks = heap.num_ranks();
  for (int rank = 0; rank < heap.num_ranks(); ++rank) {
    peers.segment[rank] = heap.control(rank);
    peers.heap_bytes[rank] = heap.heap_bytes(rank);
  }
  return peers;
}

}  // namespace switchyard::cuda
