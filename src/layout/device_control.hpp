// The control block at the start of every rank's GPU segment, and the device side of a handle. All ranks compute
// the same layout from the same numbers. docs/protocol.md states who writes what when.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout/control.hpp"
#include "layout/receive_block.hpp"
#include "layout/topology.hpp"

namespace switchyard {

// The most blocks that count tokens. One block adds up what all of them counted, so more would not be faster.
inline constexpr int max_layout_blocks = 32;

// Opens a call. There is one for each source, whose kernel writes it into the owner's control block.
struct alignas(cache_line) DeviceAnnounce {
  std::uint64_t epoch;
  std::uint64_t digest;  // of what all ranks must pass alike; 0: the source refuses
  // Dispatch: 1 if the source, as a receiver, has a block for whatever arrives, at block_offset of its heap; 0 if
  // it answers when its host knows the counts.
  std::uint64_t has_block;
  std::uint64_t block_offset;
  std::int64_t block_rows;  // of a worst case, or of a cached dispatch; -1: as many as arrive
  // Combine: offsets of tensors in the source's heap; -1 for a tensor that is not given.
  std::int64_t x_offset;
  std::int64_t weights_offset;
  std::int64_t row_weights_offset;
};

// Where the rows of the owner go. There is one for each receiver.
struct alignas(cache_line) DeviceAnswer {
  std::uint64_t epoch;
  std::uint64_t block_offset;
  std::int64_t rows;
};

struct alignas(cache_line) DeviceFlag {
  std::uint64_t epoch;
  std::uint64_t value;  // of a gate: when the peer came to it
};

// Only its own rank's kernels use it, one kernel at a time, because they are in one stream.
struct alignas(cache_line) DeviceState {
  std::uint64_t epoch;          // of the latest call whose blocks have all ended
  std::uint64_t bad_id;         // place of the first id out of range; all ones when there is none
  std::uint32_t failed;         // 1: kernels return at once
  std::uint32_t blocks_done;    // of the running kernel
  std::uint32_t blocks_opened;  // of the running kernel, that have done what comes before it publishes to peers
  std::uint32_t tokens_taken;   // of the running kernel, in addition to those that warps begin with
  std::uint64_t complete;  // number of the latest dispatch whose rows have all arrived, so that its handle is whole
};

static_assert(sizeof(DeviceAnnounce) == 64 && sizeof(DeviceAnswer) == 64 && sizeof(DeviceFlag) == 64 &&
              sizeof(DeviceState) == 64);

// wait_for_flags() finds the epoch of each of them at its start.
static_assert(offsetof(DeviceAnnounce, epoch) == 0 && offsetof(DeviceAnswer, epoch) == 0 &&
              offsetof(DeviceFlag, epoch) == 0);

// The points of a call at which kernels write down the time, by the GPU's clock.
enum class Stamp : std::uint32_t {
  released,  // the gate opened, if there was one
  started,   // the first block runs
  counted,   // all is counted (dispatch) or staged (combine), as far as the block that speaks knows
  agreed,    // the announces of all ranks have arrived
  answered,  // all destinations of a dispatch are known
  moved,     // all rows of this rank have left, or are summed
  closed,    // all ranks have got so far
  count
};

// One row of a token at some rank. Entries past the end of a token's list have rank -1.
struct DeviceRoute {
  std::int32_t row;
  std::int16_t rank;
  std::int16_t slot;  // top-k slot in the expanded layout, -1 in the flat one
};
static_assert(sizeof(DeviceRoute) == 8);

struct DeviceSizes {
  int num_ranks = 1;
  int num_experts = 0;
  int max_local_experts = 0;
  std::int64_t max_tokens = 0;
  int top_k = 1;
  [[nodiscard]] constexpr std::size_t streams() const noexcept {
    return static_cast<std::size_t>(num_ranks) + static_cast<std::size_t>(num_experts);
  }
  // The most routes that a token can have.
  [[nodiscard]] constexpr int max_width() const noexcept { return top_k > num_ranks ? top_k : num_ranks; }
  [[nodiscard]] constexpr int layout_blocks() const noexcept {
    std::size_t const affordable = (std::size_t{1} << 20) / streams();
    if (affordable < 1) return 1;
    return affordable < max_layout_blocks ? static_cast<int>(affordable) : max_layout_blocks;
  }
};

// Byte offsets of the control block's parts. The heap follows it.
struct DeviceControlLayout {
  std::size_t announces = 0;     // DeviceAnnounce[num_ranks], by source
  std::size_t answers = 0;       // DeviceAnswer[num_ranks], by receiver
  std::size_t arrived = 0;       // DeviceFlag[num_ranks], by source
  std::size_t done = 0;          // DeviceFlag[num_ranks], by peer
  std::size_t gate = 0;          // DeviceFlag[num_ranks], by peer, for benchmarks
  std::size_t counts = 0;        // i32[num_ranks][slots]: rows, slots per local expert, by source
  std::size_t totals = 0;        // i32[num_ranks][total_slots]: rows by receiver, by source; flat layout
  std::size_t starts = 0;        // i32[num_ranks][slots]: first rows, by receiver
  std::size_t state = 0;         // DeviceState; from here on only the owner reads and writes
  std::size_t stamps = 0;        // u64[Stamp::count]: ns, of the latest call
  std::size_t block_counts = 0;  // i32[layout_blocks][streams]: counts, then first numbers, of each block's tokens
  std::size_t routes = 0;        // DeviceRoute[max_tokens][max_width]: rows within the block of tokens
  std::size_t bytes = 0;         // whole pages of the smallest kind that a GPU maps
  std::size_t slots = 0;         // 1 + max local experts, whole cache lines
  std::size_t total_slots = 0;   // num_ranks, whole cache lines
};

constexpr DeviceControlLayout device_control_layout(DeviceSizes const& sizes) noexcept {
  auto const ranks = static_cast<std::size_t>(sizes.num_ranks);
  DeviceControlLayout at;
  std::size_t end = 0;
  auto const place = [&end](std::size_t bytes) {
    std::size_t const begin = end;
    end = align_up(begin + bytes, cache_line);
    return begin;
  };
  at.slots = align_up((1 + static_cast<std::size_t>(sizes.max_local_experts)) * 4, cache_line) / 4;
  at.total_slots = align_up(ranks * 4, cache_line) / 4;
  at.announces = place(ranks * sizeof(DeviceAnnounce));
  at.answers = place(ranks * sizeof(DeviceAnswer));
  at.arrived = place(ranks * sizeof(DeviceFlag));
  at.done = place(ranks * sizeof(DeviceFlag));
  at.gate = place(ranks * sizeof(DeviceFlag));
  at.counts = place(ranks * at.slots * 4);
  at.totals = place(ranks * at.total_slots * 4);
  at.starts = place(ranks * at.slots * 4);
  at.state = place(sizeof(DeviceState));
  at.stamps = place(static_cast<std::size_t>(Stamp::count) * 8);
  at.block_counts = place(static_cast<std::size_t>(sizes.layout_blocks()) * sizes.streams() * 4);
  at.routes = place(static_cast<std::size_t>(sizes.max_tokens) * static_cast<std::size_t>(sizes.max_width()) *
                    sizeof(DeviceRoute));
  at.bytes = align_up(end, 65536);
  return at;
}

// The device side of a handle, in memory that only its owner reads.
struct DeviceHandleLayout {
  std::size_t routes = 0;        // DeviceRoute[N][width], rows final
  std::size_t slot_rank = 0;     // i16[N][K]: rank of each slot's expert, -1: unused; flat with topk_idx
  std::size_t rows_of_rank = 0;  // i64[num_ranks]: rows of each rank's result
  std::size_t padded = 0;        // i32[max local experts]: rows per local expert, rounded up; expanded
  std::size_t real = 0;          // i32[max local experts]: without the rounding
  std::size_t rows = 0;          // i64: of the own result, without those of a worst case
  std::size_t recv_ends = 0;     // i32[num_ranks]: cumulative rows of the own result by source; flat
  std::size_t recv_counts = 0;   // i32[num_ranks][1 + max local experts]: rows by source, then by local expert
  std::size_t bytes = 0;
};

struct HandleSizes {
  std::int64_t num_tokens = 0;
  int width = 0;
  int top_k = 0;
  int num_ranks = 1;
  int max_local_experts = 0;
};

constexpr DeviceHandleLayout device_handle_layout(HandleSizes const& sizes) noexcept {
  DeviceHandleLayout at;
  std::size_t end = 0;
  auto const place = [&end](std::size_t bytes) {
    std::size_t const begin = end;
    end = align_up(begin + bytes, cache_line);
    return begin;
  };
  auto const tokens = static_cast<std::size_t>(sizes.num_tokens);
  at.routes = place(tokens * static_cast<std::size_t>(sizes.width) * sizeof(DeviceRoute));
  at.slot_rank = place(tokens * static_cast<std::size_t>(sizes.top_k) * 2);
  at.rows_of_rank = place(static_cast<std::size_t>(sizes.num_ranks) * 8);
  at.padded = place(static_cast<std::size_t>(sizes.max_local_experts) * 4);
  at.real = place(static_cast<std::size_t>(sizes.max_local_experts) * 4);
  at.rows = place(8);
  at.recv_ends = place(static_cast<std::size_t>(sizes.num_ranks) * 4);
  at.recv_counts = place(static_cast<std::size_t>(sizes.num_ranks) *
                         (1 + static_cast<std::size_t>(sizes.max_local_experts)) * 4);
  at.bytes = end;
  return at;
}

}  // namespace switchyard
