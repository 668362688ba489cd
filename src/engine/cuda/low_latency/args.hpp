// What the kernels of the low-latency mode take: plain structs that host code fills in and kernels read.
#pragma once

#include "engine/cuda/device/expert_owners.hpp"
#include "engine/cuda/host/args.hpp"
#include "layout/slots.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::cuda {

// What every kernel of a buffer needs.
struct SlotArgs {
  Peers peers;
  Waiting waiting;
  SlotLayoutBytes at;  // in the heaps of all ranks
  ExpertSplit experts{0, 1};
  ExpertOwners owners;
  QuickDivisor by_top_k;  // divides the number of a slot
  std::int64_t max_tokens;
  int top_k;
  int frames;
  bool mask_late;
  // A bit for each frame that the host has released: of results of calls outside of CUDA graphs, and of captured
  // calls.
  std::uint32_t released;
  std::uint32_t released_captured;

  int frame;  // of this call
  int bay;    // that the frame has for this call, at this rank
  bool captured;
  bool rank_major;
  bool send;  // this kernel does the send half
  bool receive;
  std::int64_t tokens;  // N
  std::uint64_t digest;
  std::int64_t* wait_ns;  // [R]; null when nobody asks for it

  // Rows that an expert has room for, or a source in a rank's frame: those of all sources together.
  [[nodiscard]] __host__ __device__ std::int64_t rows_of_expert() const { return max_tokens * peers.num_ranks; }
};

// Rows of bytes, one for each token.
struct ByteRows {
  std::byte const* from;  // null when there are none
  std::int64_t stride;    // bytes
  std::uint32_t bytes;    // 0 when there are none
  int width;              // 16, 4 or 1: all addresses and sizes are multiples of it
};

struct SlotDispatchArgs : SlotArgs {
  IdView ids;
  ByteRows x;           // sent as they are; not used with a cast
  ByteRows scale_rows;  // opaque scales, sent as they are
  float const* scales;  // of an x of f8e4m3; null when there are none
  std::int64_t scale_strides[2];
  WeightView weights;  // sent with rank_major only
  SendCast cast;
  DType dtype;                        // of x before the cast
  std::int64_t hidden;                // of x before the cast
  std::uint32_t scale_bytes;          // of a row as it travels; 0 when it has no scales
  bool scales_by_column;              // the scales of adjacent rows of an expert are adjacent
  std::uint32_t row_bytes;            // as it travels
  int buffer_rows;                    // rows that a block can hold for the copy engine; 0: it is not used
  std::int32_t* received_per_expert;  // [L]; null when nobody asks for it
  std::int32_t* counts;               // [L] or [R]; null when nobody asks for it
};

struct SlotCombineArgs : SlotArgs {
  bool may_repeat;     // other combines of the dispatch may have come before; FrameState tells how many
  std::byte const* x;  // to be copied to the frame's outputs; null when they lie there already
  WeightView weights;
  CombineCoding coding;
  DType dtype;
  std::int64_t hidden;
  std::uint32_t output_bytes;  // of a row of the frame's outputs, as it is read
  int width;                   // 16 or 2: rows of out and plain outputs are multiples of it
  std::byte* out;
  std::int64_t out_stride;  // bytes
};

struct SlotMaskArgs : SlotArgs {
  int peer;
  bool masked;
};

}  // namespace switchyard::cuda
