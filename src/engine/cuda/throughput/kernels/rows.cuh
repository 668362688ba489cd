// Rows: each token's row is read once and written once to every destination.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/stage_turn.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"
#include "engine/cuda/throughput/kernels/routes.cuh"

namespace switchyard::cuda {

template <typename Unit>
__device__ inline void copy_by_lanes(std::byte const* from, std::byte* to, std::uint32_t bytes) {
  constexpr int ahead = 4;
  auto const* const source = reinterpret_cast<Unit const*>(from);
  auto* const target = reinterpret_cast<Unit*>(to);
  std::uint32_t const units = bytes / sizeof(Unit);
  std::uint32_t at = threadIdx.x % 32;
  for (; at + 32 * (ahead - 1) < units; at += 32 * ahead) {
    Unit values[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) values[i] = source[at + 32 * i];
#pragma unroll
    for (int i = 0; i < ahead; ++i) target[at + 32 * i] = values[i];
  }
  for (; at < units; at += 32) target[at] = source[at];
}

// One warp copies a row, by the widest accesses that addresses and length allow.
__device__ inline void copy_row(std::byte const* from, std::byte* to, std::uint32_t bytes) {
  auto const low = reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to) | bytes;
  if (low % 16 == 0) return copy_by_lanes<uint4>(from, to, bytes);
  if (low % 4 == 0) return copy_by_lanes<std::uint32_t>(from, to, bytes);
  if (low % 2 == 0) return copy_by_lanes<std::uint16_t>(from, to, bytes);
  return copy_by_lanes<std::uint8_t>(from, to, bytes);
}

// This is for GPUs without a copy engine, and for rows whose bytes are not a multiple of 16.
__device__ inline void move_rows_by_lanes(DispatchKernelArgs const& args, Destination const* destinations,
                                          BlockWarp warp) {
  BlockTokens const tokens(args.handle.num_tokens);
  for (std::int64_t i = warp.index; i < tokens.count; i += warp.count) {
    std::int64_t const token = BlockTokens::token(i);
    std::byte const* const from = args.x.from + token * args.x.stride;
    for (int first = 0; first < args.handle.width; first += 32) {
      DeviceRoute const route = route_of_lane(args.handle, token, first);
      int const used = __popc(__ballot_sync(~0U, route.rank >= 0));
      for (int k = 0; k < used; ++k) {
        int const rank = __shfl_sync(~0U, static_cast<int>(route.rank), k);
        std::int64_t const row = __shfl_sync(~0U, route.row, k);
        copy_row(from, destinations[rank].x + row * args.x.bytes, args.x.bytes);
      }
    }
  }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// A piece of a token's row. The pieces of a warp's tokens follow one another.
struct PieceCursor {
  std::uint32_t index = 0;   // of the warp's tokens
  std::uint32_t offset = 0;  // in the row

  __device__ void advance(RowCopy const& rows) {
    offset += rows.piece;
    if (offset < rows.bytes) return;
    offset = 0;
    ++index;
  }
};

// A warp's ring of pieces in shared memory. A piece is loaded stages - 2 turns before it is stored: by then the
// stores of the turn before last have left their stage (bulk_wait_read<1>), so that it may be loaded again.
class PieceRing {
 public:
  __device__ PieceRing(DispatchKernelArgs const& args, BlockWarp warp, std::byte* stages, std::uint64_t* barriers)
      : args_(args), warp_(warp), stages_(stages), barriers_(barriers), lane_(static_cast<int>(threadIdx.x % 32)) {
    auto const tokens = static_cast<int>(BlockTokens(args.handle.num_tokens).count);
    if (tokens > warp.index)
      count_ =
          (static_cast<std::uint32_t>(tokens - warp.index) + warp.count - 1) / static_cast<unsigned>(warp.count);
  }

  // Loads the first pieces. It needs no destinations, so it may come long before the first turn.
  __device__ void start() {
    if (count_ == 0) return;
    if (lane_ == 0) {
      for (int stage = 0; stage < args_.stages; ++stage) ptx::barrier_init(&barriers_[stage], 1);
      ptx::fence_proxy_async_shared();
    }
    __syncwarp();
    fill();
  }
  // For a ring that another object of the same warp has started.
  __device__ void resume() {
    for (int turn = 0; turn < args_.stages - 2; ++turn) skip_load();
  }
  // Waits for what start() loads, for a warp that makes no turns: a block must not end before its copies.
  __device__ void drop() {
    for (int turn = 0; turn < args_.stages - 2 && more(); ++turn) {
      static_cast<void>(wait());
      stored_.advance(args_.x);
      turn_.advance(args_.stages);
    }
  }

  // Is there a turn left?
  [[nodiscard]] __device__ bool more() const { return stored_.index < count_; }
  [[nodiscard]] __device__ std::int64_t token() const { return token_of(stored_); }
  [[nodiscard]] __device__ std::uint32_t offset() const { return stored_.offset; }
  [[nodiscard]] __device__ std::uint32_t bytes() const { return bytes_of(stored_); }
  // Waits for the piece of this turn. The wait pairs with the completion of load()'s copy.
  [[nodiscard]] __device__ std::byte const* wait() {
    ptx::barrier_wait(&barriers_[turn_.stage], turn_.parity);
    return stages_ + static_cast<std::size_t>(turn_.stage) * args_.x.piece;
  }
  // All lanes call this when they have committed the stores of this turn.
  __device__ void advance() {
    stored_.advance(args_.x);
    turn_.advance(args_.stages);
    if (loaded_.index >= count_) return;
    ptx::bulk_wait_read<1>();
    __syncwarp();
    load();
  }

 private:
  [[nodiscard]] __device__ std::int64_t token_of(PieceCursor const& at) const {
    return BlockTokens::token(warp_.index + static_cast<std::int64_t>(at.index) * warp_.count);
  }
  [[nodiscard]] __device__ std::uint32_t bytes_of(PieceCursor const& at) const {
    return min(args_.x.piece, args_.x.bytes - at.offset);
  }
  __device__ void fill() {
#pragma unroll 1
    for (int turn = 0; turn < args_.stages - 2; ++turn) load();
  }
  __device__ void skip_load() {
    if (loaded_.index >= count_) return;
    loaded_.advance(args_.x);
    loads_.advance(args_.stages);
  }
  __device__ void load() {
    if (loaded_.index >= count_) return;
    if (lane_ == 0) {
      std::uint64_t* const barrier = &barriers_[loads_.stage];
      ptx::barrier_expect(barrier, bytes_of(loaded_));
      ptx::bulk_load(stages_ + static_cast<std::size_t>(loads_.stage) * args_.x.piece,
                     args_.x.from + token_of(loaded_) * args_.x.stride + loaded_.offset, bytes_of(loaded_),
                     barrier);
    }
    skip_load();
  }

  DispatchKernelArgs const& args_;
  BlockWarp warp_;
  std::byte* stages_;
  std::uint64_t* barriers_;
  int lane_;
  std::uint32_t count_ = 0;  // tokens of this warp
  PieceCursor stored_;       // of this turn
  StageTurn turn_;
  PieceCursor loaded_;  // the next to load
  StageTurn loads_;
};

// Lane i stores each piece to the token's i-th destination, and to destination i + 32.
__device__ inline void move_rows_in_bulk(DispatchKernelArgs const& args, Destination const* destinations,
                                         PieceRing ring) {
  DeviceRoute routes[2];  // of lanes 0..31 and 32..63
  for (; ring.more(); ring.advance()) {
    if (ring.offset() == 0) {
      for (int part = 0; part < 2; ++part) {
        if (part * 32 >= args.handle.width) break;
        routes[part] = route_of_lane(args.handle, ring.token(), part * 32);
      }
    }
    std::byte const* const piece = ring.wait();
    for (int part = 0; part < 2; ++part) {
      if (part * 32 >= args.handle.width || routes[part].rank < 0) continue;
      std::byte* const row =
          destinations[routes[part].rank].x + static_cast<std::int64_t>(routes[part].row) * args.x.bytes;
      ptx::bulk_store(row + ring.offset(), piece, ring.bytes());
    }
    ptx::bulk_commit();
    __syncwarp();
  }
  ptx::bulk_wait_all();
}

#endif

}  // namespace switchyard::cuda
