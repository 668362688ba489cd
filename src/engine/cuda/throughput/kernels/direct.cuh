// Direct: when every receiver has announced a block for whatever arrives, and every source how many rows each
// receiver gets, sources find the places of their rows without an answer. So rows leave one hop after the counts
// are known.
#pragma once

#include "engine/cuda/throughput/kernels/answer.cuh"
#include "engine/cuda/throughput/kernels/place.cuh"

namespace switchyard::cuda {

// The same on all ranks, because all see the same announces. In the expanded layout places follow from the counts
// of all experts, which only their receiver has.
__device__ inline bool goes_directly(DispatchKernelArgs const& args) {
  return !args.handle.expanded && all_have_blocks(args.peers);
}

// How many rows a source has for a receiver. A total that cannot be is taken as 0, and its source is noted.
__device__ inline std::uint32_t checked_total(DispatchKernelArgs const& args, int source, int receiver,
                                              int& culprit) {
  std::int32_t const total = totals_of(args.peers, args.peers.rank, source)[receiver];
  if (total >= 0 && total <= args.max_count) return static_cast<std::uint32_t>(total);
  culprit = source;
  return 0;
}

// Where this rank's rows go at a receiver: behind those of the sources before it. `arriving`: rows of all sources.
__device__ inline bool find_place(DispatchKernelArgs const& args, int receiver, Destination& to,
                                  std::int64_t& arriving) {
  std::uint32_t start = 0;  // all totals together fit into 31 bits
  std::uint32_t sum = 0;
  int culprit = -1;
#pragma unroll 4
  for (int source = 0; source < args.peers.num_ranks; ++source) {
    std::uint32_t const total = checked_total(args, source, receiver, culprit);
    if (source < args.peers.rank) start += total;
    sum += total;
  }
  arriving = sum;
  if (culprit >= 0) {
    report_count(args, culprit, totals_of(args.peers, args.peers.rank, culprit)[receiver]);
    return false;
  }
  DeviceAnnounce const* const from = announce_of(args.peers, args.peers.rank, receiver);
  std::int64_t const room = from->block_rows;
  // All sources find that, and so nobody writes.
  if (room >= 0 && arriving > room) {
    report_too_few_rows(args, receiver, arriving, room);
    return false;
  }
  return set_destination(args, receiver, {from->block_offset, room >= 0 ? room : arriving, static_cast<int>(start)},
                         to);
}

// All threads of every block call this. Returns false in all threads when what was announced does not hold.
__device__ inline bool direct_phase(DispatchKernelArgs const& args, Destination* destinations,
                                    std::int64_t& own_rows) {
  bool failed = false;
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks) {
    std::int64_t arriving = 0;
    failed = !find_place(args, peer, destinations[peer], arriving);
    if (peer == args.peers.rank) own_rows = arriving;
  }
  return !any_thread(failed);
}

// A cached dispatch: receivers announce how many rows they expect, and routes are known.
__device__ inline bool cached_phase(DispatchKernelArgs const& args, Destination* destinations) {
  bool failed = false;
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks) {
    DeviceAnnounce const* const from = announce_of(args.peers, args.peers.rank, peer);
    failed = !set_destination(args, peer, {from->block_offset, from->block_rows, 0}, destinations[peer]);
  }
  return !any_thread(failed);
}

// Rows by source, added up. One warp does it.
__device__ inline void note_sources(DispatchKernelArgs const& args) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  int end = 0;
  for (int first = 0; first < args.peers.num_ranks; first += 32) {
    int const source = first + lane;
    bool const one = source < args.peers.num_ranks;
    // A total is read anew, so it is checked anew; a peer may be broken.
    int culprit = -1;
    int const count = one ? static_cast<int>(checked_total(args, source, args.peers.rank, culprit)) : 0;
    if (culprit >= 0) report_count(args, culprit, -1);
    int const sum = sum_up_to_lane(count);
    if (one) {
      args.handle.recv_ends[source] = end + sum;
      args.handle.recv_counts[source * (1 + args.experts.max_count())] = count;
    }
    end += __shfl_sync(~0U, sum, 31);
  }
  if (lane == 0) *args.handle.rows = end;
}

// Slots by local expert, added up over sources. The same warp does it.
__device__ inline void note_experts(DispatchKernelArgs const& args) {
  int const stride = 1 + args.experts.max_count();
  int const local = args.experts.count(args.peers.rank);
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x % 32); expert < local; expert += 32) {
    int real = 0;
    int culprit = -1;
#pragma unroll 8
    for (int source = 0; source < args.peers.num_ranks; ++source) {
      int const count = checked_count(args, source, 1 + expert, culprit);
      args.handle.recv_counts[source * stride + 1 + expert] = count;
      real += count;
    }
    report_culprit(args, culprit, 1 + expert);
    args.handle.padded[expert] = padded_rows(args, real);
    args.handle.real[expert] = real;
  }
}

// One warp of the block that speaks for the rank calls this while others move rows: what arrives is noted in the
// handle. All that peers wrote into the control block has been read afterwards.
__device__ inline void note_received(DispatchKernelArgs const& args) {
  note_sources(args);
  if (args.handle.top_k > 0) note_experts(args);
  __syncwarp();
}

// The same warp, from the handle: counts for the host, and then the ticket. Nobody can refuse any more.
__device__ inline void publish_received(DispatchKernelArgs const& args) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  Mailbox* const mailbox = args.waiting.mailbox;
#pragma unroll 1
  for (int source = lane; source < args.peers.num_ranks; source += 32)
    mailbox->recv_rows_end[source] = args.handle.recv_ends[source];
  if (args.handle.top_k > 0) note_experts_for_host(args, lane, 32);
  __syncwarp();
  if (lane != 0) return;
  mailbox->rows = *args.handle.rows;
  mailbox->answers_are_certain = 1;
  publish_counted(args);
}

}  // namespace switchyard::cuda
