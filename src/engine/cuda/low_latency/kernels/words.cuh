// Low-latency mode: typed access to the slots of all ranks, and the words that ranks publish to each other about a
// frame. docs/low-latency.md has the protocol.
#pragma once

#include "engine/cuda/device/peers.cuh"
#include "engine/cuda/low_latency/args.hpp"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

template <typename T>
__device__ inline T* slot_part(SlotArgs const& args, int owner, std::size_t offset) {
  return reinterpret_cast<T*>(heap_of(args.peers, owner) + offset);
}

// A part of the bay that the frame of this call has at this rank.
template <typename T>
__device__ inline T* own_part(SlotArgs const& args, std::size_t offset) {
  return slot_part<T>(args, args.peers.rank, args.at.bay(args.bay) + offset);
}

// What `writer` publishes to `owner` about a frame. `flags` is one of the arrays of flags of SlotLayoutBytes.
__device__ inline FrameFlag* frame_flag(SlotArgs const& args, std::size_t flags, int frame, int owner, int writer) {
  return slot_part<FrameFlag>(args, owner, flags) + frame * args.peers.num_ranks + writer;
}

// What the blocks of `writer`'s send half publish to `owner` about a frame: a word for each block.
__device__ inline std::uint64_t* block_words(SlotArgs const& args, int frame, int owner, int writer) {
  return slot_part<std::uint64_t>(args, owner, args.at.sent) +
         static_cast<std::size_t>(frame * args.peers.num_ranks + writer) * max_send_blocks;
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

// Rows and outputs are published by one word, so that one load of it is enough. The word has the epoch in its upper
// half. Below it are as many bits of the call's digest as there is room for, and then a number: of blocks that send
// rows; of combines of the dispatch before this one, modulo what there is room for.
inline constexpr int number_bits = 10;
inline constexpr std::uint64_t number_mask = (1U << number_bits) - 1;
inline constexpr std::uint64_t digest_mask = 0xffffffff & ~number_mask;
static_assert(max_send_blocks <= number_mask);

__device__ inline std::uint64_t published_word(SlotArgs const& args, std::uint64_t epoch, std::uint32_t number) {
  return epoch << 32 | (args.digest << number_bits & 0xffffffff) | number;
}

// A word that is waited for.
struct FrameWord {
  std::uint64_t value;
  std::uint64_t relevant;  // the bits that must be equal
  bool published;          // published_word() makes it; otherwise it is a credit

  [[nodiscard]] __device__ bool is(std::uint64_t seen) const { return ((seen ^ value) & relevant) == 0; }
  // The peer has published this call, but it is of another kind there.
  [[nodiscard]] __device__ bool differs(std::uint64_t seen) const {
    return published && ((seen ^ value) & relevant & ~digest_mask) == 0 && !is(seen);
  }
  // The epoch of a word, for an error's text.
  [[nodiscard]] __device__ std::uint64_t epoch_of(std::uint64_t word) const {
    return published ? word >> 32 : epoch_of_credit(word);
  }
};

// The credit for an epoch, whichever bay it names.
__device__ inline FrameWord word_of_credit(std::uint64_t epoch) {
  return {.value = epoch << bay_bits, .relevant = ~std::uint64_t{0} << bay_bits, .published = false};
}
__device__ inline FrameWord word_of_call(SlotArgs const& args, std::uint64_t epoch) {
  return {.value = published_word(args, epoch, 0), .relevant = ~number_mask, .published = true};
}
// The word of a combine, after so many others of the dispatch.
__device__ inline FrameWord word_of_combine(SlotArgs const& args, std::uint64_t epoch, std::uint32_t earlier) {
  auto const number = static_cast<std::uint32_t>(earlier & number_mask);
  return {.value = published_word(args, epoch, number), .relevant = ~std::uint64_t{0}, .published = true};
}
// The word of a call that is over, whatever it was asked for.
__device__ inline FrameWord word_of_any_call(std::uint64_t epoch) {
  return {.value = epoch << 32, .relevant = ~std::uint64_t{0} << 32, .published = true};
}

}  // namespace switchyard::cuda
