// The arguments of the kernels of the throughput mode: plain structs that host code fills in and kernels read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cuda/host/args.hpp"
#include "layout/device_control.hpp"
#include "layout/experts.hpp"
#include "layout/receive_block.hpp"
#include "plan/copy_plan.hpp"
#include "switchyard/dtype.hpp"

namespace switchyard::cuda {

// The device side of a handle, with its pointers resolved.
struct DeviceHandle {
  DeviceRoute* routes;
  std::int16_t* slot_rank;  // null unless flat with topk_idx
  std::int64_t* rows_of_rank;
  std::int32_t* padded;
  std::int32_t* real;
  std::int64_t* rows;
  std::int32_t* recv_ends;
  std::int32_t* recv_counts;
  std::int64_t num_tokens;
  int width;
  int top_k;  // 0: routed by token_in_rank
  bool expanded;
};

// Tokens are cut into ranges, one for each block that takes part in a layout.
struct LayoutCut {
  int blocks;
  std::int64_t tokens;  // of a block
};

struct NotifyArgs {
  Peers peers;
  Waiting waiting;
  DeviceHandle handle;
  ExpertSplit experts{0, 1};
  IdView ids;                         // [N, K]; data null with token_in_rank, and in a cached dispatch
  std::uint8_t const* token_in_rank;  // [N, R]
  std::int64_t in_rank_strides[2];
  LayoutCut cut;
  std::int64_t max_count;      // what a peer's count can be at most
  std::int64_t worst_rows;     // 0: not in worst-case mode
  std::uint64_t block_offset;  // of the result, if it is there already
  bool has_block;
  int alignment;
  std::uint64_t digest;  // 0: refuse
  std::uint64_t ticket;  // told to the host when counts are there, or the call has failed
};

// How rows travel; a row is `bytes` long and copied in pieces of `piece` bytes.
struct RowCopy {
  std::byte const* from;
  std::int64_t stride;  // bytes
  std::uint32_t bytes;
  std::uint32_t piece;
};

// What comes before rows move.
enum class Opening : std::uint8_t {
  notify,   // all of it: this kernel counts, tells, and answers
  counted,  // the notify kernel has told the counts; this one answers
  cached,   // routes are known; ranks only make sure that they agree
};

struct DispatchArgs : NotifyArgs {
  std::uint64_t number;  // of this dispatch, the same on all ranks
  Opening opening;
  ReceiveShape shape;  // rows: of the own block
  RowCopy x;
  float const* scales;  // [N, groups]; null: none
  std::int64_t scale_strides[2];
  WeightView weights;
  std::int64_t first_token;  // what source_token begins with
  bool refused;              // this rank has no block
  bool zero_padding;
  int stages;
  int payload_warps;
};

struct SourceTensor {
  std::byte const* data;    // null: none
  std::int64_t row_stride;  // bytes
  std::uint32_t row_bytes;
  std::int64_t heap_offset;  // where it lies in the own heap, or is to be staged; -1: none
  bool stage;
};

struct CombineArgs {
  Peers peers;
  Waiting waiting;
  DeviceHandle handle;
  SourceTensor x;
  SourceTensor weights;
  SourceTensor row_weights;
  std::int64_t rows;  // of x
  std::int64_t hidden;
  DType dtype;
  std::byte const* bias[2];
  std::int64_t bias_stride[2];  // bytes
  std::byte* out;
  std::int64_t out_stride;  // bytes
  float* out_weights;       // [N, K] contiguous; null: none
  bool own_in_place;        // x of the flat layout is not in the heap: own rows are read where they are
  PullPlan pull;            // without stages: no copy engine, or rows that do not suit it
  std::uint64_t digest;
  std::uint64_t ticket;  // told to the host when all announces are there, or one failed
};

// Counts and token-in-rank without communication.
struct LayoutArgs : NotifyArgs {
  std::int32_t* tokens_per_rank;    // [R]
  std::int32_t* tokens_per_expert;  // [E]
  std::uint8_t* is_token_in_rank;   // [N, R]
};

struct CastArgs {
  std::byte const* from;
  std::int64_t row_stride;  // elements
  DType dtype;
  std::int64_t tokens;
  std::int64_t hidden;
  std::uint8_t* values;  // [N, H]
  float* scales;         // [N, ceil(H / 128)]
};

}  // namespace switchyard::cuda
