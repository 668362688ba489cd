// Low-latency mode: typed access to the slots of all ranks; waiting for what a peer says of a frame; giving frames
// back. docs/low-latency.md has the protocol.
#pragma once

#include "engine/cuda/comm/grid.cuh"
#include "engine/cuda/slot_args.hpp"

namespace switchyard::cuda {

template <typename T>
__device__ inline T* slot_part(SlotArgs const& args, int owner, std::size_t offset) {
  return reinterpret_cast<T*>(heap_of(args.peers, owner) + offset);
}

// A part of a rank's frame of this call.
template <typename T>
__device__ inline T* frame_part(SlotArgs const& args, int owner, std::size_t offset) {
  return slot_part<T>(args, owner,
                      args.at.frames + static_cast<std::size_t>(args.frame) * args.at.frame_bytes + offset);
}

// `flags`: one of SlotLayoutBytes' arrays of flags. What `writer` says to `owner` of a frame.
__device__ inline FrameFlag* frame_flag(SlotArgs const& args, std::size_t flags, int frame, int owner, int writer) {
  return slot_part<FrameFlag>(args, owner, flags) + frame * args.peers.world + writer;
}

__device__ inline FrameState* frame_state(SlotArgs const& args, int frame) {
  return slot_part<FrameState>(args, args.peers.rank, args.at.states) + frame;
}

__device__ inline std::uint32_t* masked_word(SlotArgs const& args, int peer) {
  return slot_part<std::uint32_t>(args, args.peers.rank, args.at.masked) + peer;
}

__device__ inline std::uint32_t* claims_of(SlotArgs const& args, int owner, int frame) {
  return slot_part<std::uint32_t>(args, owner, args.at.claims) + frame * args.experts.max_count();
}

// For tests: before and after a word that tells a peer something.
__device__ inline void delay_signal(SlotArgs const& args, std::uint64_t salt) {
  if (args.delays.seed == 0) return;
  std::uint64_t const begin = ptx::global_timer();
  std::uint64_t hash = (args.delays.seed ^ salt ^ begin) * 0x9e3779b97f4a7c15U;
  hash ^= hash >> 29U;
  std::uint64_t const wait_ns = (hash * 0xbf58476d1ce4e5b9U >> 32U) % (args.delays.max_us * 1000U + 1);
  while (ptx::global_timer() - begin < wait_ns) {
  }
}

// Other blocks and kernels write it: a masked peer stays masked while a kernel runs.
__device__ inline bool is_masked(SlotArgs const& args, int peer) {
  return ptx::load_relaxed(masked_word(args, peer)) != 0;  // set by mask_peer() and by the mask kernel
}

// The peer hears of it by its credits: it need not wait for rows that do not come.
__device__ inline void mask_peer(SlotArgs const& args, int peer) {
  atomicExch(masked_word(args, peer), 1U);  // read by is_masked()
  __threadfence_system();  // with the one in give_frame_back(): one of the two sees what the other has stored
  for (int frame = 0; frame < args.frames; ++frame) {
    delay_signal(args, static_cast<std::uint64_t>(peer));
    // Pairs with the load_acquire() of the peer's wait_frame().
    ptx::store_release(&frame_flag(args, args.at.credit, frame, peer, args.peers.rank)->epoch, credit_revoked);
  }
}

// Pairs with the store_release() in the peer's mask_peer().
__device__ inline bool has_masked_us(SlotArgs const& args, int peer) {
  auto const* const credit = frame_flag(args, args.at.credit, args.frame, args.peers.rank, peer);
  return ptx::load_acquire(&credit->epoch) == credit_revoked;
}

enum class Came : std::uint32_t { yes, masked, failed };

// What to do when a flag does not come.
__device__ inline Came give_up_waiting(SlotArgs const& args, Awaited const& awaited, TroubleKind reason,
                                       std::uint64_t seen) {
  bool const is_peer = awaited.peer != args.peers.rank;  // a rank that masked itself would lose rows silently
  if (args.mask_late && is_peer && (reason == TroubleKind::timeout || reason == TroubleKind::peer_lost)) {
    mask_peer(args, awaited.peer);
    return Came::masked;
  }
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = reason,
          .phase = awaited.phase,
          .peer = awaited.peer,
          .expected = awaited.epoch,
          .seen = seen});
  return Came::failed;
}

// Between turns of a wait: is there a reason to end it? `begin`: when it began, 0 at first. Not inlined: code that
// is seldom run would be fetched along with what is.
struct Patience {
  std::uint64_t begin;
  bool once_more;
};

static __device__ __noinline__ bool ends_waiting(SlotArgs const& args, FrameFlag const* flag,
                                                 Awaited const& awaited, int const volatile* missing,
                                                 Patience& patience, Came& came) {
  came = Came::masked;
  if (is_masked(args, awaited.peer)) return true;
  if (has_masked_us(args, awaited.peer)) {
    // What the peer told before counts.
    if (ptx::load_acquire(&flag->epoch) == awaited.epoch) {
      came = Came::yes;
    } else {
      mask_peer(args, awaited.peer);
    }
    return true;
  }
  if (patience.begin == 0) patience.begin = ptx::global_timer();
  TroubleKind const reason = reason_to_stop(args.peers, args.waiting, awaited, patience.begin);
  if (reason == TroubleKind::none) return false;
  if (reason == TroubleKind::timeout && args.mask_late && patience.once_more && *missing > 1) {
    // All but one may only be held up by that one, as this rank is: until their own deadline.
    patience = {.begin = ptx::global_timer(), .once_more = false};
    return false;
  }
  // The peer may have raised it before it went.
  std::uint64_t const seen = ptx::load_acquire(&flag->epoch);
  came = seen == awaited.epoch ? Came::yes : give_up_waiting(args, awaited, reason, seen);
  return true;
}

// Acquire: until the flag has the epoch; pairs with the store_release() of the peer named in `awaited`. A peer that
// is masked is not waited for, and one that has masked this rank is masked in turn. `missing`: how many are still
// waited for, this one included.
// `early`: of look_early().
__device__ inline Came wait_frame(SlotArgs const& args, FrameFlag const* flag, Awaited const& awaited,
                                  std::uint64_t early, int const volatile* missing) {
  constexpr unsigned turns_between_looks = 256;
  Patience patience{.begin = 0, .once_more = true};
  bool const masked = is_masked(args, awaited.peer);
  Came came = Came::masked;
  if (early == awaited.epoch && !masked) {
    ptx::fence_sys();  // makes an acquire of that load
    return Came::yes;
  }
#pragma unroll 1
  for (unsigned turn = 1;; ++turn) {
    std::uint64_t const seen = ptx::load_acquire(&flag->epoch);
    if (masked) return came;
    if (seen == awaited.epoch) return Came::yes;
    if (turn % turns_between_looks == 0 && ends_waiting(args, flag, awaited, missing, patience, came)) return came;
  }
}

// What threads 0..world-1 of a block found, for all of its threads.
struct Attendance {
  std::uint64_t masked;  // bit per peer
  bool failed;
  std::uint64_t rows;  // of this thread's peer, when digests are checked
};

// What threads 0..world-1 see of a flag of this call before they have to wait for it. Mostly it is there, and the
// load is done while others are.
inline constexpr std::uint64_t not_looked = ~std::uint64_t{0} - 1;

__device__ inline std::uint64_t look_early(SlotArgs const& args, std::size_t flags) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.world) return not_looked;
  return ptx::load_relaxed(&frame_flag(args, flags, args.frame, args.peers.rank, peer)->epoch);  // see wait_frame()
}

// By all threads of a block: `flags` of all peers have the epoch, and where `check` says so, the digest of this
// call.
struct Roll {
  std::size_t flags;
  std::uint64_t epoch;
  Phase phase;
  bool check = false;
  bool account = false;  // add the times waited to args.wait_ns
  std::uint64_t early = not_looked;
};

static __device__ __noinline__ void report_digest(SlotArgs const& args, std::uint64_t digest,
                                                  Awaited const& awaited) {
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::mismatch,
          .phase = awaited.phase,
          .peer = awaited.peer,
          .expected = args.digest,
          .seen = digest});
}

__device__ inline Attendance call_roll(SlotArgs const& args, int frame, Roll const& roll) {
  __shared__ unsigned long long masked;
  __shared__ int missing;
  if (threadIdx.x == 0) {
    masked = 0;
    missing = args.peers.world;
  }
  __syncthreads();
  bool failed = false;
  std::uint64_t rows = 0;
  if (static_cast<int>(threadIdx.x) < args.peers.world) {
    int const peer = static_cast<int>(threadIdx.x);
    std::uint64_t const begin = ptx::global_timer();
    auto const* const flag = frame_flag(args, roll.flags, frame, args.peers.rank, peer);
    Awaited const awaited{.phase = roll.phase, .peer = peer, .epoch = roll.epoch};
    Came came = wait_frame(args, flag, awaited, roll.early, &missing);
    atomicSub(&missing, 1);
    if (came == Came::yes && roll.check) {
      std::uint64_t const digest = flag->digest;
      rows = flag->rows;
      if (digest != args.digest) {
        report_digest(args, digest, awaited);
        came = Came::failed;
      }
    }
    if (came == Came::masked) atomicOr(&masked, 1ULL << peer);
    failed = came == Came::failed;
    if (roll.account && args.wait_ns != nullptr)
      args.wait_ns[peer] += static_cast<std::int64_t>(ptx::global_timer() - begin);
  }
  bool const any_failed = __syncthreads_or(failed ? 1 : 0) != 0;
  return {.masked = masked, .failed = any_failed, .rows = rows};
}

// By threads 0..world-1 of a block: tells all peers that are not masked. `rows`: by peer, or null.
struct FrameNews {
  std::size_t flags;
  std::uint64_t epoch;
  std::uint64_t masked;
  std::uint32_t const* rows;
};

__device__ inline void tell_frame(SlotArgs const& args, FrameNews const& news) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.world || (news.masked >> peer & 1) != 0) return;
  FrameFlag* const flag = frame_flag(args, news.flags, args.frame, peer, args.peers.rank);
  flag->digest = args.digest;
  flag->rows = news.rows == nullptr ? 0 : news.rows[peer];
  delay_signal(args, threadIdx.x);
  ptx::store_release(&flag->epoch, news.epoch);  // pairs with the load_acquire() in wait_frame()
  delay_signal(args, threadIdx.x + news.epoch);
}

// Bit per peer, by all threads of a block.
__device__ inline std::uint64_t masked_peers(SlotArgs const& args) {
  __shared__ unsigned long long masked;
  if (threadIdx.x == 0) masked = 0;
  __syncthreads();
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.world && is_masked(args, peer)) atomicOr(&masked, 1ULL << peer);
  __syncthreads();
  return masked;
}

// By all threads of a block: all that was received into the frame may be overwritten from here on.
static __device__ __noinline__ void give_frame_back(SlotArgs const& args, int frame, std::uint64_t epoch) {
  __shared__ bool first;
  FrameState* const state = frame_state(args, frame);
  __syncthreads();
  if (threadIdx.x == 0) first = atomicExch(reinterpret_cast<unsigned long long*>(&state->given), epoch) != epoch;
  __syncthreads();
  if (!first) return;
  std::uint32_t* const claims = claims_of(args, args.peers.rank, frame);
  for (int i = static_cast<int>(threadIdx.x); i < args.experts.max_count(); i += static_cast<int>(blockDim.x))
    claims[i] = 0;
  __syncthreads();
  int const peer = static_cast<int>(threadIdx.x);
  delay_signal(args, threadIdx.x);
  // Pairs with the load_acquire() in wait_frame() of the peer's next dispatch into this frame: after it the peer
  // adds to claims that are zero.
  if (peer >= args.peers.world || is_masked(args, peer)) return;
  FrameFlag* const credit = frame_flag(args, args.at.credit, frame, peer, args.peers.rank);
  ptx::store_release(&credit->epoch, epoch);
  __threadfence_system();
  // Another block may have masked the peer meanwhile, and this have taken its word away.
  if (is_masked(args, peer)) ptx::store_release(&credit->epoch, credit_revoked);  // likewise
}

// By all threads of a block, of a frame that was never received: nobody writes it any more.
// False when sources are missing, and the buffer has failed.
static __device__ __noinline__ bool await_sources(SlotArgs const& args, int frame, std::uint64_t epoch) {
  return !call_roll(args, frame, {.flags = args.at.arrived, .epoch = epoch, .phase = Phase::slots_arrive}).failed;
}

// By all threads of a block. `state`: of the frame, as all of them have read it.
__device__ inline void give_back_received(SlotArgs const& args, int frame, FrameState const& state) {
  if (state.given == state.epoch) return;
  if (state.received != state.epoch && !await_sources(args, frame, state.epoch)) return;
  give_frame_back(args, frame, state.epoch);
}

// By one block, first of all in a send half: which waits for the credits of its own rank, too. The host has seen
// that nobody holds the frame's result. If that was of a graph, a call outside of one takes it over, and so does a
// replay; a replay waits while a result of outside is held.
__device__ inline void take_frame_over(SlotArgs const& args, FrameState const& state) {
  bool const captured = state.captured != 0;
  bool const released = ((captured ? args.released_captured : args.released) >> args.frame & 1) != 0;
  if (released || captured || !args.captured) give_back_received(args, args.frame, state);
}

// By one block, when there is time: all that the host has let go of but the frame of a call that sends into it.
__device__ inline void give_frames_back(SlotArgs const& args) {
  std::uint32_t due = (args.released | args.released_captured) & (args.send ? ~(1U << args.frame) : ~0U);
#pragma unroll 1
  for (; due != 0; due &= due - 1) {
    int const frame = __ffs(static_cast<int>(due)) - 1;
    FrameState const state = *frame_state(args, frame);
    __syncthreads();  // all have read it
    bool const released = ((state.captured != 0 ? args.released_captured : args.released) >> frame & 1) != 0;
    if (released) give_back_received(args, frame, state);
  }
}

}  // namespace switchyard::cuda
