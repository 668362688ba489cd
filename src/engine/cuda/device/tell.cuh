// What kernels tell their own host.
#pragma once

#include "engine/cuda/device/peers.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

__device__ inline bool has_failed(Peers const& peers) {
  return ptx::load_relaxed(&state_of(peers)->failed) != 0;  // set by report() of this or an earlier kernel
}

// By thread 0 of a block, after a barrier of the block; `to` is a ticket of the mailbox. It says whether a trouble
// has been reported: another block may have done so, whose words reach the host later than these.
__device__ inline void tell_ticket(Peers const& peers, std::uint64_t& to, std::uint64_t ticket) {
  if (threadIdx.x != 0) return;
  std::uint64_t const failed = has_failed(peers) ? 1 : 0;
  ptx::store_release(&to, ticket << 1 | failed);  // pairs with HostMailbox::ticket() and answered()
}

// By thread 0 of a block that `speaks`: when the call got here. In GPU memory, where a release waits for it no
// longer than for everything else; read after the kernel.
__device__ inline void stamp(Peers const& peers, Stamp which, bool speaks = true) {
  if (speaks && threadIdx.x == 0)
    *control_part<std::uint64_t>(peers, peers.rank, peers.control.stamps, static_cast<int>(which)) =
        ptx::global_timer();
}

}  // namespace switchyard::cuda
