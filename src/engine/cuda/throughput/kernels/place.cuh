// Place: from the counts of all sources to the first row of each stream; as layout/placement.cpp does on the host.
// One block.
#pragma once

#include "engine/cuda/throughput/kernels/answer.cuh"

namespace switchyard::cuda {

// A count that came from outside; 0 for one that cannot be, whose source is noted.
__device__ inline int checked_count(NotifyArgs const& args, int source, int slot, int& culprit) {
  std::int64_t const count = counts_of(args.peers, args.peers.rank, source)[slot];
  if (count >= 0 && count <= args.max_count) return static_cast<int>(count);
  culprit = source;
  return 0;
}

// A count that cannot be makes the call fail.
__device__ inline void report_count(NotifyArgs const& args, int culprit, int slot) {
  if (culprit < 0) return;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::corrupt,
          .phase = Phase::announce,
          .peer = culprit,
          .expected = static_cast<std::uint64_t>(args.max_count),
          .seen = static_cast<std::uint64_t>(counts_of(args.peers, args.peers.rank, culprit)[slot])});
}

// By source, then by token. Returns the rows, in all threads.
__device__ inline int place_flat(NotifyArgs const& args, LayoutShared& shared) {
  int const source = static_cast<int>(threadIdx.x);
  bool const one = source < args.peers.num_ranks;
  int culprit = -1;
  int const count = one ? checked_count(args, source, 0, culprit) : 0;
  report_count(args, culprit, 0);
  int start = 0;
  int total = 0;
  LayoutScan(shared.scan).ExclusiveSum(count, start, total);
  if (one && !args.handle.expanded) starts_of(args.peers, source, args.peers.rank)[0] = start;
  if (one) {
    shared.rows_end[source] = args.handle.recv_ends[source] = start + count;
    args.handle.recv_counts[source * (1 + args.experts.max_count())] = count;
  }
  __syncthreads();
  return total;
}

// By local expert (aligned), then by source, then by token. Also notes how many rows each expert has.
__device__ inline int place_experts(NotifyArgs const& args, LayoutShared& shared) {
  int const local = args.experts.count(args.peers.rank);
  int begin = 0;
#pragma unroll 1
  for (int tile = 0; tile < local; tile += layout_threads) {
    int const expert = tile + static_cast<int>(threadIdx.x);
    bool const one = expert < local;
    int real = 0;
    int culprit = -1;
#pragma unroll 8
    for (int source = 0; source < args.peers.num_ranks; ++source)
      real += one ? checked_count(args, source, 1 + expert, culprit) : 0;
    report_count(args, culprit, 1 + expert);
    int const padded = (real + args.alignment - 1) / args.alignment * args.alignment;
    int start = 0;
    int total = 0;
    LayoutScan(shared.scan).ExclusiveSum(padded, start, total);
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

// False when there are more than the caller has room for.
__device__ inline bool check_rows(NotifyArgs const& args, std::int64_t rows) {
  if (args.worst_rows == 0 || rows <= args.worst_rows) return true;
  if (threadIdx.x != 0) return false;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::too_few_rows,
          .phase = Phase::announce,
          .peer = args.peers.rank,
          .expected = static_cast<std::uint64_t>(rows),
          .seen = static_cast<std::uint64_t>(args.worst_rows)});
  return false;
}

// Blocks of this rank, too, read what was written so far once they have the answer.
__device__ inline void answer(NotifyArgs const& args, std::uint64_t epoch, std::int64_t rows) {
  bool const fits = check_rows(args, rows);
  if (threadIdx.x == 0) *args.handle.rows = rows;
  __syncthreads();
  if (!args.has_block) return;
  // A refusal keeps all sources from writing.
  tell_answers(args.peers, epoch,
               {fits ? args.block_offset : refused_offset, args.worst_rows > 0 ? args.worst_rows : rows});
}

// For the host, which learns of it by its ticket. After the answers: a release waits for writes over the bus.
__device__ inline void note_counts(NotifyArgs const& args, std::int64_t rows, LayoutShared const& shared) {
  Mailbox* const mailbox = args.waiting.mailbox;
  if (threadIdx.x == 0) mailbox->rows = rows;
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks)
    mailbox->recv_rows_end[threadIdx.x] = shared.rows_end[threadIdx.x];
  if (args.handle.top_k == 0) return;
  auto* const padded = reinterpret_cast<std::int64_t*>(mailbox + 1);
  auto* const real = padded + args.experts.max_count();
  int const local = args.experts.count(args.peers.rank);
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x); expert < local; expert += layout_threads) {
    padded[expert] = args.handle.padded[expert];
    real[expert] = args.handle.real[expert];
  }
}

__device__ inline void place_phase(NotifyArgs const& args, std::uint64_t epoch, LayoutShared& shared) {
  std::int64_t const flat_rows = place_flat(args, shared);
  // Flat rows do not depend on the experts' counts: the answers need not wait for them.
  if (!args.handle.expanded) answer(args, epoch, flat_rows);
  std::int64_t const expanded_rows = args.handle.top_k > 0 ? place_experts(args, shared) : 0;
  if (args.handle.expanded) answer(args, epoch, expanded_rows);
  note_counts(args, args.handle.expanded ? expanded_rows : flat_rows, shared);
}

}  // namespace switchyard::cuda
