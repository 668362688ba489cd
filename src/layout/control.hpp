// The control block at the start of every rank's segment: what peers write to signal something to its owner.
// docs/protocol.md states who writes what when, and every acquire/release pair.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "layout/receive_block.hpp"

namespace switchyard {

inline constexpr std::size_t cache_line = 64;
inline constexpr std::size_t page_bytes = 4096;
inline constexpr std::uint64_t control_magic = 0x3152'4459'4853'5753;  // "SWSHYDR1", little-endian
inline constexpr std::size_t text_bytes = 384;

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "atomics in shared memory must not hide a lock");

// What all ranks must ask alike in one call. Every rank compares the terms of all.
enum class Term : unsigned char {
  operation,
  dtype,
  hidden,
  routing,
  top_k,
  topk_dtype,
  topk_weights,
  row_weights,
  cast,
  scales,
  layout,
  alignment,
  worst_tokens,
  dispatch,
  range,
  count
};
inline constexpr std::size_t num_terms = static_cast<std::size_t>(Term::count);

// The first failure of the buffer that a rank has reported. state: 0 none, 1 being written, 2 readable.
struct alignas(cache_line) AbortRecord {
  std::atomic<std::uint32_t> state;
  std::uint32_t code;
  std::int32_t rank;
  std::int32_t peer;
  char phase[32];
  char text[text_bytes];
};

struct ControlHeader {
  std::uint64_t magic;
  std::uint32_t num_ranks;
  std::uint32_t rank;
  std::uint64_t segment_bytes;
  // The owner sleeps on this futex word. While it does, peers that signal count up here.
  alignas(cache_line) std::atomic<std::uint32_t> doorbell;
  std::atomic<std::uint32_t> sleepers;
  std::atomic<std::uint32_t> left;  // 1: the owner's buffer goes away, and it takes part in nothing any more
  // Written by the owner in a long wait, of a job of several nodes: whom it is for, and when (HeldUp). 0: never.
  std::atomic<std::uint64_t> held_up;
  AbortRecord abort;
};

// Two for each source, for calls of even and odd epochs: opens a call, and carries its terms or the reason why the
// source refuses.
struct alignas(cache_line) Announce {
  std::atomic<std::uint64_t> epoch;
  std::uint32_t status;   // 0, or an ErrorCode
  std::uint32_t trouble;  // 1: a rank that the source serves refuses, or was asked something else (PassedOn)
  std::int64_t terms[num_terms];
  // Combine: where the expert outputs, their top-k weights and row weights begin in the source's heap; -1: none.
  std::int64_t x_offset;
  std::int64_t weights_offset;
  std::int64_t row_weights_offset;
  // Dispatch: a block of the announcing rank's heap, and the rows it has room for, into which sources may write
  // without an answer; -1: none.
  std::int64_t block_offset;
  std::int64_t block_rows;
  char text[text_bytes];
};

// One for each receiver: answers a dispatch's announce with the place for the owner's rows.
struct alignas(cache_line) Answer {
  std::atomic<std::uint64_t> epoch;
  std::uint32_t status;
  std::uint32_t reserved;
  std::uint64_t block_offset;
  std::int64_t rows;  // how many rows the receiver's block has
  char text[text_bytes];
};

struct alignas(cache_line) Flag {
  std::atomic<std::uint64_t> epoch;
};

// What a rank of another node announced to the owner of the control block, for the other ranks of the node, who
// read it when a call cannot be made.
struct alignas(cache_line) PassedOn {
  std::uint32_t status;  // 0, or an ErrorCode
  std::uint32_t reserved;
  std::int64_t terms[num_terms];
  char text[text_bytes];
};

static_assert(sizeof(AbortRecord) == 448 && sizeof(ControlHeader) == 576 && sizeof(Announce) == 576);
static_assert(sizeof(Answer) == 448 && sizeof(Flag) == 64);

// Byte offsets of the parts of a control block. The heap follows it.
struct ControlLayout {
  std::size_t announces = 0;  // Announce[2][num_ranks], by parity of the epoch and source
  std::size_t answers = 0;    // Answer[num_ranks], by receiver
  std::size_t arrived = 0;    // Flag[num_ranks]: payload of a dispatch is there, by source
  std::size_t done = 0;       // Flag[num_ranks]: the peer has read its rows of the owner's outputs, by peer
  // i64[2][num_ranks][served][1 + max local experts]: rows, rows per local expert, by parity of the epoch, by who
  // passes them on, and by source among those that it serves
  std::size_t counts = 0;
  std::size_t totals = 0;  // i64[2][num_ranks][num_ranks]: rows for each receiver, by parity and source
  // i64[num_ranks][served][1 + max local experts]: first rows, by receiver, and by source that the owner serves
  std::size_t starts = 0;
  std::size_t passed_on = 0;  // PassedOn[2][served - 1], by parity and rank of another node that the owner serves
  std::size_t bytes = 0;      // whole pages
  std::size_t slots = 0;      // 1 + max local experts, whole cache lines
  std::size_t ranks = 0;
  std::size_t served = 0;
  std::size_t total_slots = 0;  // num_ranks, whole cache lines
};

// So many numbers, and those that the last cache line has room for besides.
constexpr std::size_t whole_lines(std::size_t numbers) noexcept {
  return align_up(numbers * sizeof(std::int64_t), cache_line) / sizeof(std::int64_t);
}

// `num_ranks` of the node, each of which serves `served` ranks of the job at most (layout/served_ranks.hpp): in a
// job of one node only itself.
constexpr ControlLayout control_layout(int num_ranks, int max_local_experts, int served = 1) noexcept {
  auto const ranks = static_cast<std::size_t>(num_ranks);
  ControlLayout layout;
  layout.ranks = ranks;
  layout.served = static_cast<std::size_t>(served);
  layout.announces = align_up(sizeof(ControlHeader), cache_line);
  layout.answers = layout.announces + 2 * ranks * sizeof(Announce);
  layout.arrived = layout.answers + ranks * sizeof(Answer);
  layout.done = layout.arrived + ranks * sizeof(Flag);
  layout.counts = layout.done + ranks * sizeof(Flag);
  // Each row of a matrix has one writer, and so starts on a cache line of its own.
  layout.slots = whole_lines(1 + static_cast<std::size_t>(max_local_experts));
  layout.total_slots = whole_lines(ranks);
  std::size_t const counts_bytes = ranks * layout.served * layout.slots * sizeof(std::int64_t);
  layout.totals = layout.counts + 2 * counts_bytes;
  layout.starts = layout.totals + 2 * ranks * layout.total_slots * sizeof(std::int64_t);
  layout.passed_on = layout.starts + counts_bytes;
  layout.bytes = align_up(layout.passed_on + 2 * (layout.served - 1) * sizeof(PassedOn), page_bytes);
  return layout;
}

// Puts the control block of `rank` into its first state, before any peer maps it. The segment must be zero, which
// is the first state of every atomic in it.
inline void initialise_control(std::byte* control, int rank, int num_ranks, std::size_t segment_bytes) noexcept {
  ControlHeader* const header = new (control) ControlHeader{};
  header->magic = control_magic;
  header->rank = static_cast<std::uint32_t>(rank);
  header->num_ranks = static_cast<std::uint32_t>(num_ranks);
  header->segment_bytes = segment_bytes;
}

}  // namespace switchyard
