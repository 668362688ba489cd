// Low-latency mode: the slots of a rank, and the words by which ranks signal one another about them. All ranks
// compute the same layout from the same numbers; it lies at the start of every rank's heap. docs/low-latency.md
// states who writes what when.
//
// Dispatches use a rank's frames in turn. A frame is its words. The rows of a dispatch lie in a bay: at first
// frame f has bay f, and a frame whose result is still held when its turn comes gets another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "layout/control.hpp"
#include "layout/receive_block.hpp"

namespace switchyard {

inline constexpr int max_frames = 16;

// Bays that a rank can have, each with the memory for one dispatch's rows.
inline constexpr int bay_bits = 8;
inline constexpr int max_bays = 1 << bay_bits;

// CUDA engine: the most blocks that a send half has. Each publishes its own rows.
inline constexpr int max_send_blocks = 256;

// What one rank signals to another about one frame.
struct alignas(cache_line) FrameFlag {
  std::uint64_t epoch;   // of the frame; written last (release). In `ready` and `read` it holds more
  std::uint64_t digest;  // CPU engine, in arrived and ready: of what all ranks must ask alike
  std::uint64_t rows;    // in arrived, rank_major: rows that were sent; on the CUDA engine below the epoch
};
static_assert(sizeof(FrameFlag) == cache_line);

// What a receiver publishes to a source about a frame in one word, the credit: the epoch up to which the frame was
// given back, and below it the bay that the rows of the next epoch go to, as the bits that differ from those of the
// frame's first bay: so a word that nobody has written yet, 0, is a credit as well.
constexpr std::uint64_t credit_word(std::uint64_t epoch, int frame, int bay) noexcept {
  return epoch << bay_bits | static_cast<std::uint64_t>(bay ^ frame);
}
constexpr std::uint64_t epoch_of_credit(std::uint64_t word) noexcept {
  return word >> bay_bits;
}
constexpr int bay_of_credit(std::uint64_t word, int frame) noexcept {
  return static_cast<int>(word & (max_bays - 1)) ^ frame;
}
static_assert(max_frames <= max_bays);

// A credit of this value says that the receiver has masked this rank, which may send no more. No epoch comes to it.
inline constexpr std::uint64_t credit_revoked = ~std::uint64_t{0};

// What the owner keeps about a frame. Only the owner reads and writes it: on the CUDA engine its kernels, one at a
// time.
struct alignas(cache_line) FrameState {
  std::uint64_t epoch;  // dispatches that used the frame so far, a running one included
  std::uint64_t given;  // the credit that its sources have: up to which epoch the frame was given back, and a bay
  std::uint64_t received;  // epoch of the latest dispatch whose receive half is done
  std::uint32_t captured;  // 1: the latest dispatch is part of a CUDA graph
  std::uint32_t combines;  // of the latest dispatch so far
  std::uint32_t bay;       // of the latest dispatch
};
static_assert(sizeof(FrameState) == cache_line);

struct SlotSizes {
  int num_ranks = 1;
  int num_experts = 0;
  int max_local_experts = 0;
  int top_k = 1;
  int frames = 2;
  std::int64_t max_tokens = 0;
  int local_ranks = 0;           // over nodes: of this node
  int served = 1;                // ranks of the job that a local rank serves at most (layout/served_ranks.hpp)
  std::size_t row_bytes = 0;     // at most, of a row that a dispatch sends
  std::size_t scale_bytes = 0;   // at most, of its scales
  bool blocks_publish = false;   // CUDA engine: each block of a send half has a word of its own
  std::size_t output_bytes = 0;  // at most, of a row that a combine reads
  // Slots of a bay in the layout rank_major, which are also those of one expert in expert_major.
  [[nodiscard]] constexpr std::size_t sources_rows() const noexcept {
    return static_cast<std::size_t>(num_ranks) * static_cast<std::size_t>(max_tokens);
  }
  // Slots of a bay in the layout expert_major.
  [[nodiscard]] constexpr std::size_t rows() const noexcept {
    auto const experts = static_cast<std::size_t>(max_local_experts);
    return sources_rows() * (experts > 0 ? experts : 1);
  }
};

// Byte offsets in the heap. Those of a bay's parts count from the beginning of the bay.
struct SlotLayoutBytes {
  // FrameFlag[frames][num_ranks].
  std::size_t arrived = 0;  // by source: its rows are in the bay
  // u64[frames][num_ranks][max_send_blocks], where blocks publish: the same by source, with a word for each block.
  std::size_t sent = 0;
  std::size_t credit = 0;  // by receiver: credit_word(), up to when this rank has got the receiver's frame back
  // FrameFlag[frames][served - 1][local_ranks]: the same, for ranks of other nodes that the owner serves.
  std::size_t served_credit = 0;
  std::size_t ready = 0;   // by receiver: its outputs can be read
  std::size_t read = 0;    // by source: it has read the outputs of the combine before this one
  std::size_t claims = 0;  // u32[frames][max local experts]: rows that sources have claimed of each expert
  // Only the owner reads and writes what follows.
  std::size_t states = 0;  // FrameState[frames]
  std::size_t masked = 0;  // u32[num_ranks]: 1: masked
  // u64[frames][num_experts]: epoch << 32 | first row. Blocks of one kernel hand it to each other.
  std::size_t bases = 0;
  std::size_t scratch = 0;  // u32[64]: counters of a kernel's blocks
  std::size_t control_bytes = 0;

  std::size_t bays = 0;  // where the first begins; all lie one after another
  std::size_t bay_bytes = 0;
  // Parts of a bay.
  std::size_t x = 0;             // rows one after another, as wide as this dispatch's are
  std::size_t scales = 0;        // the same of their scales
  std::size_t source_token = 0;  // i32, a slot each
  std::size_t counts = 0;        // i32[max(L, R)]
  std::size_t ranges = 0;        // i64[L][R]
  std::size_t topk_idx = 0;      // i32[R][M][K]
  std::size_t topk_weights = 0;  // f32[R][M][K]
  std::size_t outputs = 0;       // rows one after another, as wide as this combine's are
  // i32[M][K], of the owner's tokens: expert_major: row within the expert; rank_major: within the source's slots,
  // -1 in slots whose rank an earlier slot of the token has. -1: nothing was sent.
  std::size_t positions = 0;
  std::size_t slot_expert = 0;  // i32[M][K], slot_expert_word() of each slot; -1: none
  std::size_t bytes = 0;        // of everything, with a bay for each frame

  // Where a bay begins in its owner's heap.
  [[nodiscard]] constexpr std::size_t bay(int which) const noexcept {
    return bays + static_cast<std::size_t>(which) * bay_bytes;
  }
};

// What a source notes of a slot for the combine: the expert, and the bay that the slot's row went to at the
// expert's rank. Its frame there may have another one by then.
inline constexpr int slot_expert_bits = 16;
constexpr std::int32_t slot_expert_word(int expert, int bay) noexcept {
  return static_cast<std::int32_t>(bay << slot_expert_bits | expert);
}
constexpr int expert_of_word(std::int32_t word) noexcept {
  return word < 0 ? -1 : word & ((1 << slot_expert_bits) - 1);
}
constexpr int bay_of_word(std::int32_t word) noexcept {
  return word >> slot_expert_bits;
}

constexpr SlotLayoutBytes slot_layout(SlotSizes const& sizes) noexcept {
  SlotLayoutBytes at;
  std::size_t end = 0;
  auto const place = [&end](std::size_t bytes) {
    std::size_t const begin = end;
    end = align_up(begin + bytes, part_alignment);
    return begin;
  };
  auto const num_ranks = static_cast<std::size_t>(sizes.num_ranks);
  auto const frames = static_cast<std::size_t>(sizes.frames);
  auto const local = static_cast<std::size_t>(sizes.max_local_experts);
  auto const slots = static_cast<std::size_t>(sizes.max_tokens) * static_cast<std::size_t>(sizes.top_k);
  at.arrived = place(frames * num_ranks * sizeof(FrameFlag));
  at.sent = place(sizes.blocks_publish ? frames * num_ranks * max_send_blocks * sizeof(std::uint64_t) : 0);
  at.credit = place(frames * num_ranks * sizeof(FrameFlag));
  at.served_credit = place(frames * static_cast<std::size_t>(sizes.served - 1) *
                           static_cast<std::size_t>(sizes.local_ranks) * sizeof(FrameFlag));
  at.ready = place(frames * num_ranks * sizeof(FrameFlag));
  at.read = place(frames * num_ranks * sizeof(FrameFlag));
  at.claims = place(frames * local * sizeof(std::uint32_t));
  at.states = place(frames * sizeof(FrameState));
  at.masked = place(num_ranks * sizeof(std::uint32_t));
  at.bases = place(frames * static_cast<std::size_t>(sizes.num_experts) * sizeof(std::uint64_t));
  at.scratch = place(64 * sizeof(std::uint32_t));
  at.control_bytes = end;
  at.bays = align_up(end, page_bytes);
  end = 0;
  at.x = place(sizes.rows() * sizes.row_bytes);
  at.scales = place(sizes.rows() * sizes.scale_bytes);
  at.source_token = place(sizes.rows() * sizeof(std::int32_t));
  at.counts = place((local > num_ranks ? local : num_ranks) * sizeof(std::int32_t));
  at.ranges = place(local * num_ranks * sizeof(std::int64_t));
  at.topk_idx = place(num_ranks * slots * sizeof(std::int32_t));
  at.topk_weights = place(num_ranks * slots * sizeof(float));
  at.outputs = place(sizes.rows() * sizes.output_bytes);
  at.positions = place(slots * sizeof(std::int32_t));
  at.slot_expert = place(slots * sizeof(std::int32_t));
  at.bay_bytes = align_up(end, page_bytes);
  at.bytes = at.bay(sizes.frames);
  return at;
}

// What all ranks must ask alike in one call.
struct SlotDigest {
  std::uint64_t operation = 0;  // 1: dispatch, 2: combine
  std::uint64_t layout = 0;
  std::uint64_t row_bytes = 0;
  std::uint64_t scale_bytes = 0;
  std::uint64_t dtype = 0;
  std::uint64_t cast = 0;  // or coding
  std::uint64_t weights = 0;
};

constexpr std::uint64_t digest_of(SlotDigest const& d) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a's offset and prime, over whole words
  // The low bits of the hash depend on the low bits of the words only, and the CUDA engine sends 22 of them. So the
  // high bits of large values are hashed as words of their own.
  for (std::uint64_t const word : {d.operation, d.layout, d.row_bytes, d.scale_bytes, d.dtype, d.cast, d.weights,
                                   d.row_bytes >> 22U, d.scale_bytes >> 22U}) {
    hash = (hash ^ word) * 0x100000001b3;
  }
  return hash;
}

}  // namespace switchyard
