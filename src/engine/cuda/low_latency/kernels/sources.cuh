// Low-latency mode: waiting until all rows of a dispatch have arrived. Each block of a source's send half publishes
// a word of its own, so warps wait here, and each looks after several sources.
#pragma once

#include "engine/cuda/low_latency/kernels/waiting.cuh"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// Have the words of all blocks of a source's send half arrived? All lanes of a warp call this and get the same
// answer. `seen` becomes a word that has not arrived, if there is one. The loads are acquires; they pair with the
// store_release() in publish_rows().
__device__ inline bool blocks_have_arrived(std::uint64_t const* words, FrameWord const& word, std::uint64_t& seen) {
  auto const lane = static_cast<unsigned>(threadIdx.x % 32);
  std::uint64_t own = ptx::load_acquire(words + lane);
  std::uint64_t const first = __shfl_sync(~0U, own, 0);
  // The number of blocks comes from a peer, so it is bounded. Until the first word has arrived nothing else is
  // looked at.
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

// The sources that a warp waits for, and what it knows of them. All lanes have the same.
class SourceWait {
 public:
  __device__ SourceWait(SlotArgs const& args, int frame, FrameWord const& word, SharedWait& shared, bool measures)
      : args_(args),
        frame_(frame),
        word_(word),
        shared_(shared),
        measures_(measures && args.wait_ns != nullptr),
        begin_(measures_ ? ptx::global_timer() : 0) {
    for (auto source = static_cast<int>(threadIdx.x / 32); source < args.peers.num_ranks;
         source += static_cast<int>(blockDim.x / 32))
      pending_ |= mask_of(source);
  }

  // Waits for all of them at once, so that their deadlines do not add up.
  __device__ void run() {
    for_pending([this](int source) { poll_first(source); });
#pragma unroll 1
    for (unsigned poll = 2; pending_ != 0; ++poll) {
      bool const checks = poll % polls_between_checks == 0;
      for_pending([&](int source) {
        std::uint64_t seen = 0;
        if (blocks_have_arrived(words_of(source), word_, seen)) {
          end(source, WaitResult::arrived);
        } else if (checks) {
          decide(source, seen);
        }
      });
    }
  }

  [[nodiscard]] __device__ PeerStatus status() const {
    return end_waiting(shared_, masked_, worst_);
  }

 private:
  [[nodiscard]] __device__ static bool first_lane() {
    return threadIdx.x % 32 == 0;
  }
  [[nodiscard]] __device__ std::uint64_t const* words_of(int source) const {
    return block_words(args_, frame_, args_.peers.rank, source);
  }

  template <typename Visit>
  __device__ void for_pending(Visit const& visit) {
#pragma unroll 1
    for (LocalRankMask left = pending_; left != 0; left &= left - 1)
      visit(__ffsll(static_cast<long long>(left)) - 1);
  }

  // The first poll of a source also asks whether it is masked; both loads are under way at the same time.
  __device__ void poll_first(int source) {
    std::uint32_t const masked =
        first_lane() ? ptx::load_relaxed(masked_word(args_, source)) : 0;  // as in is_masked()
    std::uint64_t seen = 0;
    bool const here = blocks_have_arrived(words_of(source), word_, seen);
    if (__any_sync(~0U, masked != 0)) {
      end(source, WaitResult::masked);
    } else if (here) {
      end(source, WaitResult::arrived);
    }
  }

  __device__ void decide(int source, std::uint64_t seen) {
    AwaitedWord const awaited{.word = word_, .point = WaitPoint::slots_arrive, .peer = source};
    WaitDecision decision{WaitDecision::Next::wait, TroubleKind::none};
    if (first_lane()) decision = decide_wait(args_, awaited, seen, &shared_.missing, deadline_);
    if (!__any_sync(~0U, decision.next != WaitDecision::Next::wait)) return;
    bool const here = blocks_have_arrived(words_of(source), word_, seen);
    WaitResult result = WaitResult::arrived;
    if (first_lane()) result = finish_wait(args_, awaited, decision, here, seen);
    end(source, static_cast<WaitResult>(__shfl_sync(~0U, static_cast<std::uint32_t>(result), 0)));
  }

  __device__ void end(int source, WaitResult result) {
    pending_ &= ~mask_of(source);
    if (result > worst_) worst_ = result;
    if (result == WaitResult::masked) masked_ |= mask_of(source);
    if (!first_lane()) return;
    if (args_.mask_late) atomicSub(&shared_.missing, 1);  // other warps read it in decide_wait()
    if (measures_) args_.wait_ns[source] += static_cast<std::int64_t>(ptx::global_timer() - begin_);
  }

  SlotArgs const& args_;
  int frame_;
  FrameWord word_;
  SharedWait& shared_;
  bool measures_;
  std::uint64_t begin_;
  LocalRankMask pending_ = 0;  // a bit for each source that is still waited for
  LocalRankMask masked_ = 0;
  WaitResult worst_ = WaitResult::arrived;
  WaitDeadline deadline_{.begin = 0, .extendable = true};  // one for all sources of the warp
};

// All threads of a block call this. It waits for the send halves of a dispatch as wait_for_peers() waits for flags.
__device__ inline PeerStatus wait_for_sources(SlotArgs const& args, int frame, FrameWord const& word,
                                              bool measures) {
  __shared__ SharedWait shared;
  start_waiting(args, shared);
  SourceWait wait(args, frame, word, shared, measures);
  wait.run();
  return wait.status();
}

}  // namespace switchyard::cuda
