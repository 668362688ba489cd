// Low-latency mode: typed access to the slots of all ranks; waiting for what a peer says of a frame; giving frames
// back. docs/low-latency.md has the protocol.
#pragma once

#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/low_latency/args.hpp"

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
  return slot_part<FrameFlag>(args, owner, flags) + frame * args.peers.num_ranks + writer;
}

// CUDA, by source: what each block of its send half says of a frame.
__device__ inline std::uint64_t* block_words(SlotArgs const& args, int frame, int owner, int writer) {
  return slot_part<std::uint64_t>(args, owner, args.at.sent) +
         static_cast<std::size_t>(frame * args.peers.num_ranks + writer) * max_send_blocks;
}

// What is told of rows or outputs: one word, so that one look at it is enough. The epoch; then, of a digest of what
// all ranks must have asked alike, as much as there is room for; then a number.
inline constexpr int number_bits = 10;
inline constexpr std::uint64_t number_mask = (1U << number_bits) - 1;
static_assert(max_send_blocks <= number_mask);

__device__ inline std::uint64_t told_word(SlotArgs const& args, std::uint64_t epoch, std::uint32_t number) {
  return epoch << 32 | (args.digest << number_bits & 0xffffffff) | number;
}

// A word that is waited for.
struct FrameWord {
  std::uint64_t value;
  std::uint64_t care;  // bits that must be alike
  bool told;           // as told_word() makes it; else an epoch

  [[nodiscard]] __device__ bool is(std::uint64_t seen) const { return ((seen ^ value) & care) == 0; }
  // Told of the same epoch, but of another kind of call.
  [[nodiscard]] __device__ bool differs(std::uint64_t seen) const {
    return told && seen >> 32 == value >> 32 && !is(seen);
  }
  // What a message says of a word.
  [[nodiscard]] __device__ std::uint64_t epoch_of(std::uint64_t word) const { return told ? word >> 32 : word; }
};

__device__ inline FrameWord credit_word(std::uint64_t epoch) {
  return {.value = epoch, .care = ~std::uint64_t{0}, .told = false};
}
__device__ inline FrameWord word_of_call(SlotArgs const& args, std::uint64_t epoch) {
  return {.value = told_word(args, epoch, 0), .care = ~number_mask, .told = true};
}
// Of a call that is over, whatever it asked for.
__device__ inline FrameWord word_of_any(std::uint64_t epoch) {
  return {.value = epoch << 32, .care = ~std::uint64_t{0} << 32, .told = true};
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

// What is waited for, and who says it.
struct AwaitedWord {
  FrameWord word;
  Phase phase;
  int peer;
};

// What to do when a word does not come.
__device__ inline Came give_up_waiting(SlotArgs const& args, AwaitedWord const& awaited, TroubleKind reason,
                                       std::uint64_t seen) {
  bool const is_peer = awaited.peer != args.peers.rank;  // a rank that masked itself would lose rows silently
  if (args.mask_late && is_peer && (reason == TroubleKind::timeout || reason == TroubleKind::peer_lost)) {
    mask_peer(args, awaited.peer);
    return Came::masked;
  }
  bool const differs = reason == TroubleKind::mismatch;
  FrameWord const& word = awaited.word;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = reason,
          .phase = awaited.phase,
          .peer = awaited.peer,
          .expected = differs ? (word.value & 0xffffffff) >> number_bits : word.epoch_of(word.value),
          .seen = differs ? (seen & 0xffffffff) >> number_bits : word.epoch_of(seen)});
  return Came::failed;
}

// `begin`: when a wait began, 0 at first.
struct Patience {
  std::uint64_t begin;
  bool once_more;
};

// Why a wait ends, if it does.
struct Verdict {
  enum class Why : std::uint32_t { go_on, masked, masked_us, trouble } why;
  TroubleKind trouble;
};

// Between turns of a wait. Not inlined: code that is seldom run would be fetched along with what is. `missing`: how
// many are still waited for, this one included.
static __device__ __noinline__ Verdict judge_wait(SlotArgs const& args, AwaitedWord const& awaited,
                                                  std::uint64_t seen, int const volatile* missing,
                                                  Patience& patience) {
  using Why = Verdict::Why;
  if (is_masked(args, awaited.peer)) return {Why::masked, TroubleKind::none};
  if (has_masked_us(args, awaited.peer)) return {Why::masked_us, TroubleKind::none};
  if (awaited.word.differs(seen)) return {Why::trouble, TroubleKind::mismatch};
  if (patience.begin == 0) patience.begin = ptx::global_timer();
  TroubleKind const reason =
      reason_to_stop(args.peers, args.waiting,
                     {.phase = awaited.phase, .peer = awaited.peer, .epoch = awaited.word.value}, patience.begin);
  if (reason == TroubleKind::none) return {Why::go_on, reason};
  if (reason == TroubleKind::timeout && args.mask_late && patience.once_more && *missing > 1) {
    // All but one may only be held up by that one, as this rank is: until their own deadline.
    patience = {.begin = ptx::global_timer(), .once_more = false};
    return {Why::go_on, TroubleKind::none};
  }
  return {Why::trouble, reason};
}

// What comes of a wait that ends. `here`: what is waited for is there after all, seen after the verdict: what a
// peer told before it masked this rank, or went, counts.
static __device__ __noinline__ Came settle_wait(SlotArgs const& args, AwaitedWord const& awaited,
                                                Verdict const& verdict, bool here, std::uint64_t seen) {
  if (verdict.why == Verdict::Why::masked) return Came::masked;
  if (here) return Came::yes;
  if (verdict.why == Verdict::Why::trouble) return give_up_waiting(args, awaited, verdict.trouble, seen);
  mask_peer(args, awaited.peer);
  return Came::masked;
}

// What a thread asks for before it has anything else to do: loads that are under way at the same time. `masked`
// and `word` by threads 0..num_ranks-1, of their peer, `failed` by thread 0.
struct EarlyLook {
  std::uint32_t failed;
  std::uint32_t masked;
  std::uint64_t word;
};

__device__ inline EarlyLook look_around(SlotArgs const& args) {
  EarlyLook look{.failed = 0, .masked = 0, .word = ~std::uint64_t{0} - 1};
  if (threadIdx.x == 0) look.failed = ptx::load_relaxed(&state_of(args.peers)->failed);  // set by report()
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks) look.masked = ptx::load_relaxed(masked_word(args, peer));  // as is_masked()
  return look;
}

// Also at a flag of this call. The acquire holds up what this thread loads afterwards.
__device__ inline EarlyLook look_at(SlotArgs const& args, int frame, std::size_t flags) {
  EarlyLook look = look_around(args);
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks)
    look.word =
        ptx::load_acquire(&frame_flag(args, flags, frame, args.peers.rank, peer)->epoch);  // as wait_frame()
  return look;
}

// Acquire: until the flag has the word; pairs with the store_release() of the peer named in `awaited`. A peer that
// is masked is not waited for, and one that has masked this rank is masked in turn. `missing`: how many are still
// waited for, this one included.
__device__ inline Came wait_frame(SlotArgs const& args, std::uint64_t const* flag, AwaitedWord const& awaited,
                                  EarlyLook const& look, int const volatile* missing) {
  if (look.masked != 0) return Came::masked;
  if (awaited.word.is(look.word)) return Came::yes;
  Patience patience{.begin = 0, .once_more = true};
#pragma unroll 1
  for (unsigned turn = 1;; ++turn) {
    std::uint64_t seen = ptx::load_acquire(flag);
    if (awaited.word.is(seen)) return Came::yes;
    if (turn % turns_between_looks != 0) continue;
    Verdict const verdict = judge_wait(args, awaited, seen, missing, patience);
    if (verdict.why == Verdict::Why::go_on) continue;
    seen = ptx::load_acquire(flag);
    return settle_wait(args, awaited, verdict, awaited.word.is(seen), seen);
  }
}

// What a block found of all peers, for all of its threads.
struct Attendance {
  std::uint64_t masked;  // bit per peer
  bool failed;
};

// What the threads of a block that wait for peers share.
struct Waited {
  unsigned long long masked;  // by those who look for it
  int missing;                // peers that are still waited for; counted with mask_late only
};

__device__ inline void start_waiting(SlotArgs const& args, Waited& waited) {
  if (!args.mask_late) return;
  __syncthreads();  // nobody looks at it from a wait before
  if (threadIdx.x == 0) waited.missing = args.peers.num_ranks;
  __syncthreads();
}

// By all threads of a block: `masked`: the peers that this thread found masked. One barrier, when all have come.
__device__ inline Attendance end_waiting(Waited& waited, std::uint64_t masked, Came worst) {
  if (!any_thread(worst != Came::yes)) return {.masked = 0, .failed = false};
  if (threadIdx.x == 0) waited.masked = 0;
  __syncthreads();
  if (masked != 0) atomicOr(&waited.masked, masked);
  bool const failed = any_thread(worst == Came::failed);
  return {.masked = waited.masked, .failed = failed};
}

// By all threads of a block: `flags` of all peers have the word.
struct Roll {
  std::size_t flags;
  FrameWord word;
  Phase phase;
  bool account = false;  // add the times waited to args.wait_ns
};

__device__ inline Attendance call_roll(SlotArgs const& args, int frame, Roll const& roll, EarlyLook const& look) {
  __shared__ Waited waited;
  start_waiting(args, waited);
  Came came = look.failed != 0 ? Came::failed : Came::yes;
  int const peer = static_cast<int>(threadIdx.x);
  if (peer < args.peers.num_ranks && came == Came::yes) {
    bool const counts_time = roll.account && args.wait_ns != nullptr;
    std::uint64_t const begin = counts_time ? ptx::global_timer() : 0;
    std::uint64_t const* const flag = &frame_flag(args, roll.flags, frame, args.peers.rank, peer)->epoch;
    came = wait_frame(args, flag, {.word = roll.word, .phase = roll.phase, .peer = peer}, look, &waited.missing);
    if (args.mask_late) atomicSub(&waited.missing, 1);
    if (counts_time) args.wait_ns[peer] += static_cast<std::int64_t>(ptx::global_timer() - begin);
  }
  return end_waiting(waited, came == Came::masked ? std::uint64_t{1} << peer : 0, came);
}

// By a warp; acquire: are the words of all blocks of a source's send half there? The same in all lanes. `seen`: one
// that is not, if any. Each pairs with the store_release() in tell_rows_sent().
__device__ inline bool blocks_are_there(std::uint64_t const* words, FrameWord const& word, std::uint64_t& seen) {
  auto const lane = static_cast<unsigned>(threadIdx.x % 32);
  std::uint64_t own = ptx::load_acquire(words + lane);
  std::uint64_t const first = __shfl_sync(~0U, own, 0);
  // Whatever a peer says. When the first word is not there, nothing else is looked at.
  unsigned const blocks =
      word.is(first) ? min(static_cast<unsigned>(first & number_mask), static_cast<unsigned>(max_send_blocks)) : 1;
  bool here = lane >= blocks || word.is(own);
#pragma unroll 1
  for (unsigned block = lane + 32; here && block < blocks; block += 32) {
    own = ptx::load_acquire(words + block);
    here = word.is(own);
  }
  unsigned const missing = __ballot_sync(~0U, !here);
  if (missing == 0) return true;
  seen = __shfl_sync(~0U, own, __ffs(static_cast<int>(missing)) - 1);
  return false;
}

// The sources that a warp waits for, and what it knows of them; the same in all lanes.
class SourceWait {
 public:
  __device__ SourceWait(SlotArgs const& args, int frame, FrameWord const& word, Waited& waited, bool account)
      : args_(args),
        frame_(frame),
        word_(word),
        waited_(waited),
        counts_time_(account && args.wait_ns != nullptr),
        begin_(counts_time_ ? ptx::global_timer() : 0) {
    for (auto source = static_cast<int>(threadIdx.x / 32); source < args.peers.num_ranks;
         source += static_cast<int>(blockDim.x / 32))
      pending_ |= std::uint64_t{1} << source;
  }

  // All at once, so that their deadlines do not add up.
  __device__ void run() {
    each([this](int source) { look(source); });
#pragma unroll 1
    for (unsigned turn = 2; pending_ != 0; ++turn) {
      bool const judges = turn % turns_between_looks == 0;
      each([&](int source) {
        std::uint64_t seen = 0;
        if (blocks_are_there(words_of(source), word_, seen)) {
          end(source, Came::yes);
        } else if (judges) {
          judge(source, seen);
        }
      });
    }
  }

  [[nodiscard]] __device__ Attendance found() const {
    return end_waiting(waited_, masked_, worst_);
  }

 private:
  [[nodiscard]] __device__ static bool first_lane() {
    return threadIdx.x % 32 == 0;
  }
  [[nodiscard]] __device__ std::uint64_t const* words_of(int source) const {
    return block_words(args_, frame_, args_.peers.rank, source);
  }

  template <typename Visit>
  __device__ void each(Visit const& visit) {
#pragma unroll 1
    for (std::uint64_t left = pending_; left != 0; left &= left - 1)
      visit(__ffsll(static_cast<long long>(left)) - 1);
  }

  // At first: is it masked, and is it there? Both are asked at the same time.
  __device__ void look(int source) {
    std::uint32_t const masked =
        first_lane() ? ptx::load_relaxed(masked_word(args_, source)) : 0;  // as is_masked()
    std::uint64_t seen = 0;
    bool const here = blocks_are_there(words_of(source), word_, seen);
    if (__any_sync(~0U, masked != 0)) {
      end(source, Came::masked);
    } else if (here) {
      end(source, Came::yes);
    }
  }

  __device__ void judge(int source, std::uint64_t seen) {
    AwaitedWord const awaited{.word = word_, .phase = Phase::slots_arrive, .peer = source};
    Verdict verdict{Verdict::Why::go_on, TroubleKind::none};
    if (first_lane()) verdict = judge_wait(args_, awaited, seen, &waited_.missing, patience_);
    if (!__any_sync(~0U, verdict.why != Verdict::Why::go_on)) return;
    bool const here = blocks_are_there(words_of(source), word_, seen);
    Came came = Came::yes;
    if (first_lane()) came = settle_wait(args_, awaited, verdict, here, seen);
    end(source, static_cast<Came>(__shfl_sync(~0U, static_cast<std::uint32_t>(came), 0)));
  }

  __device__ void end(int source, Came came) {
    pending_ &= ~(std::uint64_t{1} << source);
    if (came > worst_) worst_ = came;
    if (came == Came::masked) masked_ |= std::uint64_t{1} << source;
    if (!first_lane()) return;
    if (args_.mask_late) atomicSub(&waited_.missing, 1);
    if (counts_time_) args_.wait_ns[source] += static_cast<std::int64_t>(ptx::global_timer() - begin_);
  }

  SlotArgs const& args_;
  int frame_;
  FrameWord word_;
  Waited& waited_;
  bool counts_time_;
  std::uint64_t begin_;
  std::uint64_t pending_ = 0;  // bit per source
  std::uint64_t masked_ = 0;
  Came worst_ = Came::yes;
  Patience patience_{.begin = 0, .once_more = true};  // of all that are waited for
};

// By all threads of a block: as call_roll(), for send halves of dispatches.
__device__ inline Attendance await_sources(SlotArgs const& args, int frame, FrameWord const& word, bool account) {
  __shared__ Waited waited;
  start_waiting(args, waited);
  SourceWait wait(args, frame, word, waited, account);
  wait.run();
  return wait.found();
}

// By threads 0..num_ranks-1 of a block, after a barrier of the block: each tells its peer, unless that is masked.
__device__ inline void tell_outputs(SlotArgs const& args, std::uint64_t epoch, bool masked) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.num_ranks || masked) return;
  delay_signal(args, threadIdx.x);
  // Pairs with the load_acquire() in wait_frame().
  ptx::store_release(&frame_flag(args, args.at.ready, args.frame, peer, args.peers.rank)->epoch,
                     told_word(args, epoch, 0));
  delay_signal(args, threadIdx.x + epoch);
}

// Likewise: the rows that this block has sent are there.
__device__ inline void tell_rows_sent(SlotArgs const& args, std::uint64_t epoch, std::uint64_t masked) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.num_ranks || (masked >> peer & 1) != 0) return;
  delay_signal(args, threadIdx.x + blockIdx.x);
  // Pairs with the load_acquire() in blocks_are_there().
  ptx::store_release(block_words(args, args.frame, peer, args.peers.rank) + blockIdx.x,
                     told_word(args, epoch, gridDim.x));
  delay_signal(args, threadIdx.x + blockIdx.x + epoch);
}

// By all threads of a block: all that was received into the frame may be overwritten from here on.
static __device__ __noinline__ void give_frame_back(SlotArgs const& args, int frame, std::uint64_t epoch) {
  __shared__ bool first;
  FrameState* const state = frame_state(args, frame);
  int const peer = static_cast<int>(threadIdx.x);
  bool const masked = peer < args.peers.num_ranks && is_masked(args, peer);
  __syncthreads();
  if (threadIdx.x == 0) first = atomicExch(reinterpret_cast<unsigned long long*>(&state->given), epoch) != epoch;
  __syncthreads();
  if (!first) return;
  std::uint32_t* const claims = claims_of(args, args.peers.rank, frame);
  for (int i = static_cast<int>(threadIdx.x); i < args.experts.max_count(); i += static_cast<int>(blockDim.x))
    claims[i] = 0;
  __syncthreads();
  // What is masked may not be any more, with nobody else to tell it.
  if (peer >= args.peers.num_ranks || (masked && is_masked(args, peer))) return;
  delay_signal(args, threadIdx.x);
  // Pairs with the load_acquire() in wait_frame() of the peer's next dispatch into this frame: after it the peer
  // adds to claims that are zero. The greater one stays: the peer may have been masked meanwhile, and its credit
  // been revoked.
  ptx::max_release(&frame_flag(args, args.at.credit, frame, peer, args.peers.rank)->epoch, epoch);
}

// By all threads of a block, of a frame that was never received: nobody writes it any more.
// False when sources are missing, and the buffer has failed.
static __device__ __noinline__ bool nobody_writes(SlotArgs const& args, int frame, std::uint64_t epoch) {
  return !await_sources(args, frame, word_of_any(epoch), false).failed;
}

// By all threads of a block. `state`: of the frame, as all of them have read it.
__device__ inline void give_back_received(SlotArgs const& args, int frame, FrameState const& state) {
  if (state.given == state.epoch) return;
  if (state.received != state.epoch && !nobody_writes(args, frame, state.epoch)) return;
  give_frame_back(args, frame, state.epoch);
}

// Has the host let go of the result that is in the frame?
__device__ inline bool is_released(SlotArgs const& args, int frame, FrameState const& state) {
  return ((state.captured != 0 ? args.released_captured : args.released) >> frame & 1) != 0;
}

// By one block, first of all in a send half: which waits for the credits of its own rank, too. The host has seen
// that nobody holds the frame's result. If that was of a graph, a call outside of one takes it over, and so does a
// replay; a replay waits while a result of outside is held.
__device__ inline void take_frame_over(SlotArgs const& args, FrameState const& state) {
  if (is_released(args, args.frame, state) || state.captured != 0 || !args.captured)
    give_back_received(args, args.frame, state);
}

// By one block, when there is time: all that the host has let go of but the frame of a call that sends into it.
__device__ inline void give_frames_back(SlotArgs const& args) {
  __shared__ FrameState states[max_frames];
  std::uint32_t const due = (args.released | args.released_captured) & (args.send ? ~(1U << args.frame) : ~0U);
  if (due == 0) return;
  // All states are under way at the same time.
  int const own = static_cast<int>(threadIdx.x);
  if (own < args.frames) states[own] = *frame_state(args, own);
  __syncthreads();
#pragma unroll 1
  for (std::uint32_t left = due; left != 0; left &= left - 1) {
    int const frame = __ffs(static_cast<int>(left)) - 1;
    FrameState const& state = states[frame];
    if (is_released(args, frame, state)) give_back_received(args, frame, state);
  }
}

}  // namespace switchyard::cuda
