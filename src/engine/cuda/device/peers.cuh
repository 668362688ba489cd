// Typed access to the control blocks of all ranks. `owner` is the rank in whose segment a part lies, and `writer`
// the rank that writes it.
#pragma once

#include "engine/cuda/host/args.hpp"

namespace switchyard::cuda {

template <typename T>
__device__ inline T* control_part(Peers const& peers, int owner, std::size_t offset, int index = 0) {
  return reinterpret_cast<T*>(peers.segment[owner] + offset) + index;
}

__device__ inline DeviceAnnounce* announce_of(Peers const& peers, int owner, int writer) {
  return control_part<DeviceAnnounce>(peers, owner, peers.control.announces, writer);
}
__device__ inline DeviceAnswer* answer_of(Peers const& peers, int owner, int writer) {
  return control_part<DeviceAnswer>(peers, owner, peers.control.answers, writer);
}
__device__ inline DeviceFlag* gate_of(Peers const& peers, int owner, int writer) {
  return control_part<DeviceFlag>(peers, owner, peers.control.gate, writer);
}
__device__ inline std::int32_t* counts_of(Peers const& peers, int owner, int writer) {
  return control_part<std::int32_t>(peers, owner, peers.control.counts) +
         static_cast<std::size_t>(writer) * peers.control.slots;
}
__device__ inline std::int32_t* totals_of(Peers const& peers, int owner, int writer) {
  return control_part<std::int32_t>(peers, owner, peers.control.totals) +
         static_cast<std::size_t>(writer) * peers.control.total_slots;
}
__device__ inline std::int32_t* starts_of(Peers const& peers, int owner, int writer) {
  return control_part<std::int32_t>(peers, owner, peers.control.starts) +
         static_cast<std::size_t>(writer) * peers.control.slots;
}

// These parts belong to this rank alone.
__device__ inline DeviceState* state_of(Peers const& peers) {
  return control_part<DeviceState>(peers, peers.rank, peers.control.state);
}
__device__ inline std::int32_t* block_counts_of(Peers const& peers) {
  return control_part<std::int32_t>(peers, peers.rank, peers.control.block_counts);
}
__device__ inline DeviceRoute* scratch_routes_of(Peers const& peers) {
  return control_part<DeviceRoute>(peers, peers.rank, peers.control.routes);
}

// The heap follows the control block.
__device__ inline std::byte* heap_of(Peers const& peers, int rank) {
  return peers.segment[rank] + peers.control.bytes;
}

}  // namespace switchyard::cuda
