// What kernels publish to their own host: the first failure, tickets of calls, and the times of a call's phases.
#pragma once

#include "engine/cuda/device/peers.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

// True once this kernel or an earlier one of the buffer has failed. The relaxed load pairs with the atomicExch() in
// report(): nothing else is read because of it, and whoever misses the flag reads it again.
__device__ inline bool has_failed(Peers const& peers) {
  return ptx::load_relaxed(&state_of(peers)->failed) != 0;
}

// Fails the buffer. Only the first report of a buffer reaches the host.
__device__ inline void report(Peers const& peers, Waiting const& waiting, Trouble const& trouble) {
  if (atomicExch(&state_of(peers)->failed, 1U) != 0) return;  // pairs with the load_relaxed() in has_failed()
  Trouble& to = waiting.mailbox->trouble;
  to.kind = trouble.kind;
  to.point = trouble.point;
  to.peer = trouble.peer;
  to.expected = trouble.expected;
  to.seen = trouble.seen;
  to.call = waiting.call;
  ptx::store_release(&to.state, 1);  // pairs with the acquire load in HostMailbox::has_trouble()
}

// Publishes a ticket of the mailbox. One thread does it, after a barrier of those that wrote what goes with it. The
// word also says whether a trouble was reported: another block may have done so, and its words may reach the host
// after the ticket.
__device__ inline void publish_ticket(Peers const& peers, std::uint64_t& to, std::uint64_t ticket) {
  std::uint64_t const failed = has_failed(peers) ? 1 : 0;
  // Pairs with the acquire loads in HostMailbox::ticket() and answered().
  ptx::store_release(&to, ticket << 1 | failed);
}

// Thread 0 of a block for which `speaks` holds writes down when the call got here. The times lie in GPU memory,
// where they do not hold up a release any longer than the other stores do; the host reads them when the kernel has
// ended.
__device__ inline void stamp(Peers const& peers, Stamp which, bool speaks = true) {
  if (speaks && threadIdx.x == 0)
    *control_part<std::uint64_t>(peers, peers.rank, peers.control.stamps, static_cast<int>(which)) =
        ptx::global_timer();
}

}  // namespace switchyard::cuda
