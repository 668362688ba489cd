// Place: from the counts of all sources to the first row of each stream, as layout/placement.cpp does it on the
// host, and notify, which begins a call. One block speaks for the rank.
#pragma once

#include "engine/cuda/throughput/kernels/agree.cuh"
#include "engine/cuda/throughput/kernels/answer.cuh"
#include "engine/cuda/throughput/kernels/count.cuh"

namespace switchyard::cuda {

// A count that a source wrote. One that cannot be is taken as 0, and its source is noted in `culprit`.
__device__ inline int checked_count(NotifyKernelArgs const& args, int source, int slot, int& culprit) {
  std::int64_t const count = counts_of(args.peers, args.peers.rank, source)[slot];
  if (count >= 0 && count <= args.max_count) return static_cast<int>(count);
  culprit = source;
  return 0;
}

// Fails the call for a count that cannot be.
__device__ inline void report_count(NotifyKernelArgs const& args, int culprit, std::int64_t count) {
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .point = WaitPoint::announce,
          .peer = culprit,
          .expected = static_cast<std::uint64_t>(args.max_count),
          .seen = static_cast<std::uint64_t>(count)});
}

// Fails the call if checked_count() has found a culprit.
__device__ inline void report_culprit(NotifyKernelArgs const& args, int culprit, int slot) {
  if (culprit >= 0) report_count(args, culprit, counts_of(args.peers, args.peers.rank, culprit)[slot]);
}

// Rows go by source, then by token. Returns how many there are, in all threads.
__device__ inline int place_flat(NotifyKernelArgs const& args, CountShared& shared) {
  int const source = static_cast<int>(threadIdx.x);
  bool const one = source < args.peers.num_ranks;
  int culprit = -1;
  int const count = one ? checked_count(args, source, 0, culprit) : 0;
  report_culprit(args, culprit, 0);
  int start = 0;
  int total = 0;
  CountScan(shared.scan).ExclusiveSum(count, start, total);
  if (one && !args.handle.expanded) starts_of(args.peers, source, args.peers.rank)[0] = start;
  if (one) {
    shared.rows_end[source] = args.handle.recv_ends[source] = start + count;
    args.handle.recv_counts[source * (1 + args.experts.max_count())] = count;
  }
  __syncthreads();
  return total;
}

// A local expert's rows, rounded up.
__device__ inline int padded_rows(NotifyKernelArgs const& args, int real) {
  return (real + args.alignment - 1) / args.alignment * args.alignment;
}

// Rows go by local expert (aligned), then by source, then by token. Also notes how many rows each expert has.
__device__ inline int place_experts(NotifyKernelArgs const& args, CountShared& shared) {
  int const local = args.experts.count(args.peers.rank);
  int begin = 0;
#pragma unroll 1
  for (int tile = 0; tile < local; tile += count_threads) {
    int const expert = tile + static_cast<int>(threadIdx.x);
    bool const one = expert < local;
    int real = 0;
    int culprit = -1;
#pragma unroll 8
    for (int source = 0; source < args.peers.num_ranks; ++source)
      real += one ? checked_count(args, source, 1 + expert, culprit) : 0;
    report_culprit(args, culprit, 1 + expert);
    int const padded = padded_rows(args, real);
    int start = 0;
    int total = 0;
    CountScan(shared.scan).ExclusiveSum(padded, start, total);
    start += begin;
    if (one) {
      args.handle.padded[expert] = padded;
      args.handle.real[expert] = real;
    }
#pragma unroll 1
    for (int source = 0; one && source < args.peers.num_ranks; ++source)
      args.handle.recv_counts[source * (1 + args.experts.max_count()) + 1 + expert] =
          counts_of(args.peers, args.peers.rank, source)[1 + expert];
#pragma unroll 1
    for (int source = 0; one && args.handle.expanded && source < args.peers.num_ranks; ++source) {
      starts_of(args.peers, source, args.peers.rank)[1 + expert] = start;
      start += counts_of(args.peers, args.peers.rank, source)[1 + expert];
    }
    begin += total;
    __syncthreads();
  }
  return begin;
}

// More rows arrive at a receiver than its caller has room for.
__device__ inline void report_too_few_rows(NotifyKernelArgs const& args, int receiver, std::int64_t rows,
                                           std::int64_t room) {
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::too_few_rows,
          .point = WaitPoint::announce,
          .peer = receiver,
          .expected = static_cast<std::uint64_t>(rows),
          .seen = static_cast<std::uint64_t>(room)});
}

// False when more rows arrive than the caller has room for.
__device__ inline bool check_rows(NotifyKernelArgs const& args, std::int64_t rows) {
  if (args.worst_rows == 0 || rows <= args.worst_rows) return true;
  if (threadIdx.x == 0) report_too_few_rows(args, args.peers.rank, rows, args.worst_rows);
  return false;
}

// The rank's own blocks, too, read what was written so far once they have the answer.
__device__ inline void answer_sources(NotifyKernelArgs const& args, std::uint64_t epoch, std::int64_t rows) {
  bool const fits = check_rows(args, rows);
  if (threadIdx.x == 0) *args.handle.rows = rows;
  __syncthreads();
  if (!args.has_block) return;
  // A refusal keeps all sources from writing.
  publish_answers(args, epoch,
                  {fits ? args.block_offset : refused_offset, args.worst_rows > 0 ? args.worst_rows : rows});
}

// Slots by local expert, for publish_counted(). So many threads do it, of which this one is `thread`.
__device__ inline void note_experts_for_host(NotifyKernelArgs const& args, int thread, int threads) {
  auto* const padded = reinterpret_cast<std::int64_t*>(args.waiting.mailbox + 1);
  auto* const real = padded + args.experts.max_count();
  int const local = args.experts.count(args.peers.rank);
#pragma unroll 1
  for (int expert = thread; expert < local; expert += threads) {
    padded[expert] = args.handle.padded[expert];
    real[expert] = args.handle.real[expert];
  }
}

// Writes counts to the mailbox, for publish_counts(). It comes after the answers, because their release would wait
// for these writes to go over the bus.
__device__ inline void note_counts(NotifyKernelArgs const& args, std::int64_t rows, CountShared const& shared) {
  Mailbox* const mailbox = args.waiting.mailbox;
  if (threadIdx.x == 0) mailbox->rows = rows;
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks)
    mailbox->recv_rows_end[threadIdx.x] = shared.rows_end[threadIdx.x];
  if (args.handle.top_k > 0) note_experts_for_host(args, static_cast<int>(threadIdx.x), count_threads);
}

__device__ inline void place_phase(NotifyKernelArgs const& args, std::uint64_t epoch, CountShared& shared) {
  std::int64_t const flat_rows = place_flat(args, shared);
  // Flat rows do not depend on the experts' counts, so the answers need not wait for them.
  if (!args.handle.expanded) answer_sources(args, epoch, flat_rows);
  std::int64_t const expanded_rows = args.handle.top_k > 0 ? place_experts(args, shared) : 0;
  if (args.handle.expanded) answer_sources(args, epoch, expanded_rows);
  note_counts(args, args.handle.expanded ? expanded_rows : flat_rows, shared);
}

// One thread publishes what the host waits for, after a barrier of those that wrote into the mailbox.
__device__ inline void publish_counted(NotifyKernelArgs const& args) {
  DeviceState* const state = state_of(args.peers);
  args.waiting.mailbox->bad_id = static_cast<std::int64_t>(state->bad_id);
  state->bad_id = ~std::uint64_t{0};
  publish_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
}

// All threads of the block call this.
__device__ inline void publish_counts(NotifyKernelArgs const& args) {
  __syncthreads();
  if (threadIdx.x == 0) publish_counted(args);
}

// All threads of every block call this: it counts and announces. Returns true in all threads of the block that
// speaks for the rank: the last one of all when each counts for itself, since it has the fewest tokens; otherwise
// the one that ends its count last.
__device__ inline bool open_phase(NotifyKernelArgs const& args, std::uint64_t epoch, CountShared& shared) {
  bool speaks = blockIdx.x + 1 == gridDim.x;
  if (counts_alone(args)) {
    count_alone(args, speaks, shared);
  } else {
    count_phase(args, shared);
    speaks = is_last_block<Readers::own>(&state_of(args.peers)->blocks_opened);
  }
  if (!speaks) return false;
  stamp(args.peers, Stamp::counted);
  std::uint64_t const digest = digest_to_announce(args);
  send_counts(args, shared);
  announce_dispatch(args, epoch, digest, args.worst_rows > 0 ? args.worst_rows : -1);
  return true;
}

// The block that speaks for the rank calls this when all have announced: it places streams, answers if it has a
// block, and publishes what arrives to the host.
__device__ inline void place_and_answer(NotifyKernelArgs const& args, std::uint64_t epoch, CountShared& shared) {
  place_phase(args, epoch, shared);
  bool const certain = all_have_blocks(args.peers);
  if (threadIdx.x == 0) args.waiting.mailbox->answers_are_certain = certain ? 1 : 0;
  publish_counts(args);
}

}  // namespace switchyard::cuda
