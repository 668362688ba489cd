// What the kernels of the throughput mode take: plain structs that host code fills in and kernels read.
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

// The device side of a handle (DeviceHandleLayout), as pointers.
struct DeviceHandle {
  DeviceRoute* routes;
  std::int16_t* slot_rank;  // null unless the layout is flat and topk_idx was given
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

// Threads of every block of a kernel that counts.
inline constexpr int count_threads = 640;

// Tokens that a block counts at once, in the flat layout with so many slots a token.
constexpr int tokens_counted_at_once(int slots) noexcept {
  return slots > 32 ? count_threads : count_threads / 32 * (32 / slots);
}

// Tokens are cut into ranges, one for each block that counts. With one range every block of a dispatch counts it,
// if the layout is flat.
struct LayoutCut {
  int blocks;
  std::int64_t tokens;  // of a block
};

struct NotifyKernelArgs {
  Peers peers;
  Waiting waiting;
  DeviceHandle handle;
  ExpertSplit experts{0, 1};
  IdView ids;                         // [N, K]; its data is null with token_in_rank, and in a cached dispatch
  std::uint8_t const* token_in_rank;  // [N, R]
  std::int64_t in_rank_strides[2];
  LayoutCut cut;
  std::int64_t max_count;      // the largest count that a peer can have
  std::int64_t worst_rows;     // num_worst_tokens; 0: not given
  std::uint64_t block_offset;  // of the result in the own heap, if has_block
  bool has_block;              // the result has its block before the counts are known
  int alignment;
  std::uint64_t digest;  // of what all ranks must pass alike; 0: this rank refuses
  std::uint64_t ticket;  // published to the host when the counts are known, or the call has failed
};

// Rows that travel: each has `bytes` bytes and is copied in pieces of `piece` bytes.
struct RowCopy {
  std::byte const* from;
  std::int64_t stride;  // bytes
  std::uint32_t bytes;
  std::uint32_t piece;
};

// What a dispatch kernel has to do before rows can move.
enum class DispatchStart : std::uint8_t {
  notify,   // everything: it counts, publishes the counts, agrees with the peers, and finds places or answers
  counted,  // it answers; a notify kernel has done all that comes before
  cached,   // routes are known; ranks only make sure that they agree
};

// The caller's numbers of local experts, to which the rows that these receive are added.
struct ReceivedNumbers {
  void* to;  // [L] i32, or i64 if `wide`; null: nobody asked for it
  std::int64_t stride;
  bool wide;
};

struct DispatchKernelArgs : NotifyKernelArgs {
  std::uint64_t number;  // of this dispatch, the same on all ranks
  DispatchStart start;
  ReceiveShape shape;  // of the rows; its row count is that of the own block
  RowCopy x;
  float const* scales;  // [N, groups]; null when there are none
  std::int64_t scale_strides[2];
  WeightView weights;
  void* ids_copy;  // [N, K] contiguous, in the dtype of the ids; null: nobody asked for it
  ReceivedNumbers received;
  std::int64_t first_token;  // the number in source_token of token 0
  bool refused;              // this rank has no block for its rows
  bool zero_padding;
  int stages;
  int row_warps;  // warps of a block that move rows
};

struct SourceTensor {
  std::byte const* data;    // null when there is none
  std::int64_t row_stride;  // bytes
  std::uint32_t row_bytes;
  std::int64_t heap_offset;  // where in the own heap peers read it; -1: nowhere
  bool stage;                // it must be copied there first
};

struct CombineKernelArgs {
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
  float* out_weights;       // [N, weight_slots] contiguous; null when there are none
  int weight_slots;
  bool weights_of_all_ranks;
  bool own_in_place;  // flat layout, x not in the heap: the rows that this rank pulls from itself are not staged
  PullPlan pull;      // has no stages where there is no copy engine, or rows do not suit it
  std::uint64_t digest;
  std::uint64_t ticket;  // published to the host when all announces have arrived, or the call has failed
};

// A layout alone: counts and token-in-rank, without communication.
struct LayoutKernelArgs : NotifyKernelArgs {
  std::int32_t* tokens_per_rank;    // [R]
  std::int32_t* tokens_per_expert;  // [E]
  std::uint8_t* is_token_in_rank;   // [N, R]
};

struct CastKernelArgs {
  std::byte const* from;
  std::int64_t row_stride;  // elements
  DType dtype;
  std::int64_t tokens;
  std::int64_t hidden;
  std::uint8_t* values;  // [N, H]
  float* scales;         // [N, ceil(H / 128)]
};

}  // namespace switchyard::cuda
