// Low-latency mode: waiting for a word of each peer, and masks, which end such waits.
#pragma once

#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/low_latency/kernels/words.cuh"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// A masked peer stays masked while a kernel runs. Other blocks and kernels write the word: the relaxed load pairs
// with the exchanges in mask_peer() and in the mask kernel, and nothing else is read because of it.
__device__ inline bool is_masked(SlotArgs const& args, int peer) {
  return ptx::load_relaxed(masked_word(args, peer)) != 0;
}

// The peer learns of it by its credits, so that it does not wait for rows that will not come.
__device__ inline void mask_peer(SlotArgs const& args, int peer) {
  atomicExch(masked_word(args, peer), 1U);  // pairs with the load_relaxed() in is_masked()
  for (int frame = 0; frame < args.frames; ++frame) {
    // Pairs with the load_acquire() in wait_word() and has_masked_us() of the peer.
    signal_peer(args.waiting, &frame_flag(args, args.at.credit, frame, peer, args.peers.rank)->epoch,
                credit_revoked);
  }
}

// The load pairs with the store_release() in mask_peer() of the peer.
__device__ inline bool has_masked_us(SlotArgs const& args, int peer) {
  auto const* const credit = frame_flag(args, args.at.credit, args.frame, args.peers.rank, peer);
  return ptx::load_acquire(&credit->epoch) == credit_revoked;
}

// How a wait for a peer ended.
enum class WaitResult : std::uint32_t { arrived, masked, failed };

// What is waited for, and who publishes it.
struct AwaitedWord {
  FrameWord word;
  WaitPoint point;
  int peer;
};

// What becomes of a wait whose word does not arrive: the peer is masked, or the buffer fails.
__device__ inline WaitResult give_up_waiting(SlotArgs const& args, AwaitedWord const& awaited, TroubleKind reason,
                                             std::uint64_t seen) {
  bool const is_peer = awaited.peer != args.peers.rank;  // a rank that masked itself would lose rows silently
  if (args.mask_late && is_peer && (reason == TroubleKind::timeout || reason == TroubleKind::peer_lost)) {
    mask_peer(args, awaited.peer);
    return WaitResult::masked;
  }
  bool const differs = reason == TroubleKind::mismatch;
  FrameWord const& word = awaited.word;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = reason,
          .point = awaited.point,
          .peer = awaited.peer,
          .expected = differs ? (word.value & 0xffffffff) >> number_bits : word.epoch_of(word.value),
          .seen = differs ? (seen & 0xffffffff) >> number_bits : word.epoch_of(seen)});
  return WaitResult::failed;
}

struct WaitDeadline {
  std::uint64_t begin;  // when it started to run; 0: it does not run yet
  bool extendable;      // by as long again, once
};

// What a wait does next.
struct WaitDecision {
  enum class Next : std::uint32_t { wait, stop_masked, stop_masked_by_peer, stop_trouble } next;
  TroubleKind trouble;
};

// Between the polls of a wait. `missing` says how many peers are still waited for, this one included. This is not
// inlined, because code that seldom runs would be fetched along with code that does.
static __device__ __noinline__ WaitDecision decide_wait(SlotArgs const& args, AwaitedWord const& awaited,
                                                        std::uint64_t seen, int const volatile* missing,
                                                        WaitDeadline& deadline) {
  using Next = WaitDecision::Next;
  if (is_masked(args, awaited.peer)) return {Next::stop_masked, TroubleKind::none};
  if (has_masked_us(args, awaited.peer)) return {Next::stop_masked_by_peer, TroubleKind::none};
  if (awaited.word.differs(seen)) return {Next::stop_trouble, TroubleKind::mismatch};
  if (deadline.begin == 0) deadline.begin = ptx::global_timer();
  TroubleKind const reason =
      reason_to_stop(args.peers, args.waiting,
                     {.point = awaited.point, .peer = awaited.peer, .epoch = awaited.word.value}, deadline.begin);
  if (reason == TroubleKind::none) return {Next::wait, reason};
  if (reason == TroubleKind::timeout && args.mask_late && deadline.extendable && *missing > 1) {
    // All of them but one may only be held up by that one, as this rank is, until their own deadline.
    deadline = {.begin = ptx::global_timer(), .extendable = false};
    return {Next::wait, TroubleKind::none};
  }
  return {Next::stop_trouble, reason};
}

// The result of a wait that stops. `here` says that the word has arrived after all, as a load after the decision
// saw: what a peer published before it masked this rank, or was lost, counts.
static __device__ __noinline__ WaitResult finish_wait(SlotArgs const& args, AwaitedWord const& awaited,
                                                      WaitDecision const& decision, bool here, std::uint64_t seen) {
  if (decision.next == WaitDecision::Next::stop_masked) return WaitResult::masked;
  if (here) return WaitResult::arrived;
  if (decision.next == WaitDecision::Next::stop_trouble)
    return give_up_waiting(args, awaited, decision.trouble, seen);
  mask_peer(args, awaited.peer);
  return WaitResult::masked;
}

// What a thread loads before it has anything else to do, so that these loads are under way at the same time.
// Threads 0..num_ranks-1 load `masked` and `word` of their peer, and thread 0 loads `failed`.
struct EarlyLoads {
  std::uint32_t failed;
  std::uint32_t masked;
  std::uint64_t word;
};

__device__ inline EarlyLoads load_early(SlotArgs const& args) {
  EarlyLoads early{.failed = 0, .masked = 0, .word = ~std::uint64_t{0} - 1};
  if (threadIdx.x == 0) early.failed = ptx::load_relaxed(&state_of(args.peers)->failed);  // as in has_failed()
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks) early.masked = ptx::load_relaxed(masked_word(args, peer));  // as in is_masked()
  return early;
}

// Loads a flag of this call as well. The acquire holds up what this thread loads afterwards.
__device__ inline EarlyLoads load_early(SlotArgs const& args, int frame, std::size_t flags) {
  EarlyLoads early = load_early(args);
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks)
    early.word =
        ptx::load_acquire(&frame_flag(args, flags, frame, args.peers.rank, peer)->epoch);  // as in wait_word()
  return early;
}

// How a wait for a word ended, and the word: that of the very load that ended it. By the next one the peer may have
// masked this rank.
struct WordWait {
  WaitResult result;
  std::uint64_t word;
};

// Waits until the flag has the word. The load is an acquire; it pairs with the store_release() of the peer named in
// `awaited`. A peer that is masked is not waited for, and a peer that has masked this rank is masked in turn.
// `missing` says how many peers are still waited for, this one included.
__device__ inline WordWait wait_word(SlotArgs const& args, std::uint64_t const* flag, AwaitedWord const& awaited,
                                     EarlyLoads const& early, int const volatile* missing) {
  if (early.masked != 0) return {WaitResult::masked, 0};
  if (awaited.word.is(early.word)) return {WaitResult::arrived, early.word};
  WaitDeadline deadline{.begin = 0, .extendable = true};
#pragma unroll 1
  for (unsigned poll = 1;; ++poll) {
    std::uint64_t seen = ptx::load_acquire(flag);
    if (awaited.word.is(seen)) return {WaitResult::arrived, seen};
    if (poll % polls_between_checks != 0) continue;
    WaitDecision const decision = decide_wait(args, awaited, seen, missing, deadline);
    if (decision.next == WaitDecision::Next::wait) continue;
    seen = ptx::load_acquire(flag);
    return {finish_wait(args, awaited, decision, awaited.word.is(seen), seen), seen};
  }
}

// What a block found of all peers. All of its threads have the same.
struct PeerStatus {
  LocalRankMask masked;  // a bit for each peer
  bool failed;
};

// What the threads of a block share while they wait for peers.
struct SharedWait {
  unsigned long long masked;  // the peers that any thread found masked
  int missing;                // peers that are still waited for; counted with mask_late only
};

__device__ inline void start_waiting(SlotArgs const& args, SharedWait& shared) {
  if (!args.mask_late) return;
  __syncthreads();  // no thread reads it for an earlier wait any more
  if (threadIdx.x == 0) shared.missing = args.peers.num_ranks;
  __syncthreads();
}

// All threads of a block call this. `masked` are the peers that this thread found masked, and `worst` its worst
// result. When the words of all peers have arrived, this costs one barrier.
__device__ inline PeerStatus end_waiting(SharedWait& shared, LocalRankMask masked, WaitResult worst) {
  if (!any_thread(worst != WaitResult::arrived)) return {.masked = 0, .failed = false};
  if (threadIdx.x == 0) shared.masked = 0;
  __syncthreads();
  if (masked != 0) atomicOr(&shared.masked, masked);  // the barrier below orders it before the load
  bool const failed = any_thread(worst == WaitResult::failed);
  return {.masked = shared.masked, .failed = failed};
}

// A wait for the same word in the flags of all peers.
struct PeerWait {
  std::size_t flags;
  FrameWord word;
  WaitPoint point;
  bool measures = false;  // the times waited are added to args.wait_ns
};

// For words that say no more than is waited for.
struct NothingElse {
  __device__ WaitResult operator()(int /*peer*/, std::uint64_t /*word*/) const { return WaitResult::arrived; }
};

// All threads of a block call this. A thread that has waited for a peer hands its word to `read`, whose result is
// that of the wait; what it puts into shared memory all threads see afterwards.
template <typename Read = NothingElse>
__device__ inline PeerStatus wait_for_peers(SlotArgs const& args, int frame, PeerWait const& wait,
                                            EarlyLoads const& early, Read const& read = {}) {
  __shared__ SharedWait shared;
  start_waiting(args, shared);
  WaitResult result = early.failed != 0 ? WaitResult::failed : WaitResult::arrived;
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks && result == WaitResult::arrived) {
    bool const measures = wait.measures && args.wait_ns != nullptr;
    std::uint64_t const begin = measures ? ptx::global_timer() : 0;
    std::uint64_t const* const flag = &frame_flag(args, wait.flags, frame, args.peers.rank, peer)->epoch;
    WordWait const ended =
        wait_word(args, flag, {.word = wait.word, .point = wait.point, .peer = peer}, early, &shared.missing);
    result = ended.result == WaitResult::arrived ? read(peer, ended.word) : ended.result;
    if (args.mask_late) atomicSub(&shared.missing, 1);  // other threads read it in decide_wait()
    if (measures) args.wait_ns[peer] += static_cast<std::int64_t>(ptx::global_timer() - begin);
  }
  return end_waiting(shared, result == WaitResult::masked ? mask_of(peer) : 0, result);
}

}  // namespace switchyard::cuda
