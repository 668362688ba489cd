// Open: all that comes before rows can move, from ids to the answers of the peers.
#pragma once

#include "engine/cuda/throughput/kernels/place.cuh"

namespace switchyard::cuda {

// What the host waits for; mailbox writes of this block come before.
__device__ inline void tell_counts(NotifyArgs const& args) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  DeviceState* const state = state_of(args.peers);
  args.waiting.mailbox->bad_id = static_cast<std::int64_t>(state->bad_id);
  state->bad_id = ~std::uint64_t{0};
  tell_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
}

// All threads of every block. The block whose layout ends last speaks for the rank; the others go on, and learn
// from the answers (this rank's own among them) that counts and first numbers are there.
__device__ inline void open_phase(NotifyArgs const& args, std::uint64_t epoch, LayoutShared& shared) {
  layout_phase(args, shared);
  ptx::fence_proxy_async();  // the copy engine writes this shared memory next
  if (!is_last_block<Readers::own>(&state_of(args.peers)->blocks_opened)) return;
  stamp(args.peers, Stamp::counted);
  std::uint64_t const digest = digest_to_tell(args);
  send_counts(args);
  if (agree(args, epoch, digest)) {
    stamp(args.peers, Stamp::agreed);
    place_phase(args, epoch, shared);
    bool const certain = all_have_blocks(args.peers);
    if (threadIdx.x == 0) args.waiting.mailbox->answers_are_certain = certain ? 1 : 0;
  }
  tell_counts(args);
  ptx::fence_proxy_async();
}

}  // namespace switchyard::cuda
