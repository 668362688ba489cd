// Rows: each token's row is read once and written once to every destination.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
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

// A warp's ring of pieces in shared memory. A piece is loaded stages - 2 turns before it is stored: by then the
// stores of the turn before last have left their stage (bulk_wait_read<1>), so that it may be loaded again.
class PieceRing {
 public:
  __device__ PieceRing(DispatchKernelArgs const& args, BlockWarp warp, std::byte* stages, std::uint64_t* barriers)
      : args_(args),
        warp_(warp),
        stages_(stages),
        barriers_(barriers),
        pieces_((args.x.bytes + args.x.piece - 1) / args.x.piece),
        lane_(static_cast<int>(threadIdx.x % 32)) {
    std::int64_t const tokens = BlockTokens(args.handle.num_tokens).count;
    std::int64_t const mine = tokens > warp.index ? (tokens - warp.index + warp.count - 1) / warp.count : 0;
    turns_ = mine * pieces_;
    if (lane_ == 0) {
      for (int stage = 0; stage < args.stages; ++stage) ptx::barrier_init(&barriers_[stage], 1);
      ptx::fence_barrier_init();
    }
    __syncwarp();
    for (int turn = 0; turn < args.stages - 2; ++turn) load(turn);
  }

  [[nodiscard]] __device__ std::int64_t turns() const { return turns_; }
  [[nodiscard]] __device__ std::int64_t token(std::int64_t turn) const {
    return BlockTokens::token(warp_.index + turn / pieces_ * warp_.count);
  }
  [[nodiscard]] __device__ std::uint32_t offset(std::int64_t turn) const {
    return static_cast<std::uint32_t>(turn % pieces_) * args_.x.piece;
  }
  [[nodiscard]] __device__ std::uint32_t bytes(std::int64_t turn) const {
    return min(args_.x.piece, args_.x.bytes - offset(turn));
  }
  // Waits for the piece of this turn. The wait pairs with the completion of load()'s copy.
  [[nodiscard]] __device__ std::byte const* wait(std::int64_t turn) {
    int const stage = static_cast<int>(turn % args_.stages);
    ptx::barrier_wait(&barriers_[stage], static_cast<std::uint32_t>(turn / args_.stages) & 1U);
    return stages_ + static_cast<std::size_t>(stage) * args_.x.piece;
  }
  // All lanes call this when they have committed the stores of this turn.
  __device__ void advance(std::int64_t turn) {
    ptx::bulk_wait_read<1>();
    __syncwarp();
    load(turn + args_.stages - 2);
  }

 private:
  __device__ void load(std::int64_t turn) {
    if (lane_ != 0 || turn >= turns_) return;
    int const stage = static_cast<int>(turn % args_.stages);
    ptx::barrier_expect(&barriers_[stage], bytes(turn));
    ptx::bulk_load(stages_ + static_cast<std::size_t>(stage) * args_.x.piece,
                   args_.x.from + token(turn) * args_.x.stride + offset(turn), bytes(turn), &barriers_[stage]);
  }

  DispatchKernelArgs const& args_;
  BlockWarp warp_;
  std::byte* stages_;
  std::uint64_t* barriers_;
  std::uint32_t pieces_;
  int lane_;
  std::int64_t turns_;
};

// Lane i stores each piece to the token's i-th destination, and to destination i + 32.
__device__ inline void move_rows_in_bulk(DispatchKernelArgs const& args, Destination const* destinations,
                                         BlockWarp warp, std::byte* stages, std::uint64_t* barriers) {
  PieceRing ring(args, warp, stages, barriers);
  DeviceRoute routes[2];  // of lanes 0..31 and 32..63
  for (std::int64_t turn = 0; turn < ring.turns(); ++turn) {
    std::int64_t const token = ring.token(turn);
    if (ring.offset(turn) == 0) {
      for (int part = 0; part < 2; ++part) {
        if (part * 32 >= args.handle.width) break;
        routes[part] = route_of_lane(args.handle, token, part * 32);
      }
    }
    std::byte const* const piece = ring.wait(turn);
    for (int part = 0; part < 2; ++part) {
      if (part * 32 >= args.handle.width || routes[part].rank < 0) continue;
      std::byte* const row =
          destinations[routes[part].rank].x + static_cast<std::int64_t>(routes[part].row) * args.x.bytes;
      ptx::bulk_store(row + ring.offset(turn), piece, ring.bytes(turn));
    }
    ptx::bulk_commit();
    __syncwarp();
    ring.advance(turn);
  }
  ptx::bulk_wait_all();
}

#endif

}  // namespace switchyard::cuda
