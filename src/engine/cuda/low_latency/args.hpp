// The arguments of the kernels of the low-latency mode: plain structs that host code fills in and kernels read.
#pragma once

#include "control/signal_delay.hpp"
#include "engine/cuda/device/expert_owners.hpp"
#include "engine/cuda/device/quick_divisor.hpp"
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
  QuickDivisor by_top_k;  // of slots of tokens
  std::int64_t max_tokens;
  int top_k;
  int frames;
  bool mask_late;
  SignalDelays delays;  // of tests
  // Bit per frame that the host has let go of: of calls outside of CUDA graphs, and of captured ones.
  std::uint32_t released;
  std::uint32_t released_captured;

  int frame;  // of this call
  bool captured;
  bool rank_major;
  bool send;  // the halves that this kernel does
  bool receive;
  std::int64_t tokens;  // N
  std::uint64_t digest;
  std::int64_t* wait_ns;  // [R]; null: nobody asks

  // Rows that one source may have in a rank's frame, all sources together.
  [[nodiscard]] __host__ __device__ std::int64_t rows_of_expert() const { return max_tokens * peers.num_ranks; }
};

// Rows of bytes, one a token. `width`: 16, 4 or 1: what all addresses and sizes are multiples of.
struct ByteRows {
  std::byte const* from;  // null: none
  std::int64_t stride;    // bytes
  std::uint32_t bytes;    // 0: none
  int width;
};

struct SlotDispatchArgs : SlotArgs {
  IdView ids;
  ByteRows x;           // sent as it is; not used with a cast
  ByteRows scale_rows;  // opaque scales, sent as they are
  // f32 scales of an f8e4m3 x; null: none.
  float const* scales;
  std::int64_t scale_strides[2];
  WeightView weights;  // rank_major
  SendCast cast;
  DType dtype;                // of x, for the cast
  std::int64_t hidden;        // likewise
  std::uint32_t scale_bytes;  // of a row as it travels; 0: none
  bool scales_by_column;      // scales of adjacent rows of an expert lie beside one another
  std::uint32_t row_bytes;    // as it travels
  int buffer_rows;            // rows that a block has room for in shared memory, for the copy engine; 0: not used
  std::int32_t* received_per_expert;  // [L]; null: nobody asks
};

struct SlotCombineArgs : SlotArgs {
  std::byte const* x;  // to be copied to the frame's outputs; null: there already
  WeightView weights;
  CombineCoding coding;
  DType dtype;
  std::int64_t hidden;
  std::uint32_t output_bytes;  // of a row of the frame's outputs, as it is read
  int width;                   // of out's rows and of plain outputs: 16 or 2
  std::byte* out;
  std::int64_t out_stride;  // bytes
};

// What a rank says of a peer.
struct SlotMaskArgs : SlotArgs {
  int peer;
  bool masked;
};

}  // namespace switchyard::cuda
