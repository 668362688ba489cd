// Rows: each token's row is read once and written once to every destination.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/stage_turn.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"
#include "engine/cuda/throughput/kernels/resolve.cuh"
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

// Which tokens the warp moves, one after the other. All begin with the same number of tokens of their block. SMs
// are not equally fast while memory is full, so of many tokens a warp then takes the next that no warp of the rank
// has taken: so all end at the same time.
class TokenTurns {
 public:
  __device__ TokenTurns(DispatchKernelArgs const& args, BlockWarp warp)
      : args_(args),
        warp_(warp),
        tokens_(static_cast<std::uint32_t>(args.handle.num_tokens)),
        own_turns_(shares_tokens(args) ? args.stages - 1 : 0x7fffffff),
        token_(own_token(0)) {}

  // Where a block counts alone it knows no routes but those of its own tokens.
  [[nodiscard]] static __device__ bool shares_tokens(DispatchKernelArgs const& args) { return !counts_alone(args); }
  // Is there a token?
  [[nodiscard]] __device__ bool more() const { return token_ < tokens_; }
  [[nodiscard]] __device__ std::uint32_t token() const { return token_; }
  // Asks for the next token before it is needed. All lanes call this and next().
  __device__ void prepare() {
    if (asked_ || turn_ + 1 < own_turns_) return;
    asked_ = true;
    // Relaxed: nothing is read because of it but what all blocks have seen before rows move.
    if (threadIdx.x % 32 == 0) asked_token_ = atomicAdd(&state_of(args_.peers)->tokens_taken, 1U);
  }
  __device__ void next() {
    if (!more()) return;
    if (turn_ + 1 < own_turns_) {
      token_ = own_token(++turn_);
      return;
    }
    prepare();
    asked_ = false;
    ++turn_;
    token_ = gridDim.x * static_cast<unsigned>(warp_.count * own_turns_) + __shfl_sync(~0U, asked_token_, 0);
  }

 private:
  [[nodiscard]] __device__ std::uint32_t own_token(int turn) const {
    return blockIdx.x + static_cast<unsigned>(warp_.index + turn * warp_.count) * gridDim.x;
  }

  DispatchKernelArgs const& args_;
  BlockWarp warp_;
  std::uint32_t tokens_;
  int own_turns_;  // more than a ring loads ahead: it does so before tokens are shared out
  bool asked_ = false;
  int turn_ = 0;
  std::uint32_t token_;
  std::uint32_t asked_token_ = 0;  // of lane 0
};

// What a warp's ring consists of, in shared memory.
struct RingParts {
  std::byte* stages;
  std::uint64_t* barriers;  // by stage
  std::uint32_t* tokens;    // by stage: whose piece it holds
};

// A warp's ring of pieces in shared memory. A piece is loaded stages - 2 turns before it is stored: by then the
// stores of the turn before last have left their stage (bulk_wait_read<1>), so that it may be loaded again. The
// first pieces are of tokens that are known from the start.
class PieceRing {
 public:
  __device__ PieceRing(DispatchKernelArgs const& args, BlockWarp warp, RingParts const& parts)
      : args_(args), parts_(parts), lane_(static_cast<int>(threadIdx.x % 32)), tokens_(args, warp) {}

  // Loads the first pieces. It needs no destinations, so it may come long before the first turn.
  __device__ void start() {
    if (!tokens_.more()) return;
    if (lane_ == 0) {
      for (int stage = 0; stage < args_.stages; ++stage) ptx::barrier_init(&parts_.barriers[stage], 1);
      ptx::fence_proxy_async_shared();
    }
    __syncwarp();
    fill();
    __syncwarp();
  }
  // For a ring that another object of the same warp has started.
  __device__ void resume() {
    for (int turn = 0; turn < args_.stages - 2; ++turn) skip_load();
  }
  // Waits for what start() loads, for a warp that makes no turns: a block must not end before its copies.
  __device__ void drop() {
    resume();
    for (; more(); --under_way_) {
      static_cast<void>(wait());
      turn_.advance(args_.stages);
    }
  }

  // Is there a turn left?
  [[nodiscard]] __device__ bool more() const { return under_way_ > 0; }
  [[nodiscard]] __device__ std::uint32_t token() const { return parts_.tokens[turn_.stage]; }
  [[nodiscard]] __device__ std::uint32_t offset() const { return offset_; }
  [[nodiscard]] __device__ std::uint32_t bytes() const { return bytes_at(offset_); }
  // Waits for the piece of this turn. The wait pairs with the completion of load()'s copy.
  [[nodiscard]] __device__ std::byte const* wait() {
    ptx::barrier_wait(&parts_.barriers[turn_.stage], turn_.parity);
    return stage(turn_.stage);
  }
  // All lanes call this when they have committed the stores of this turn.
  __device__ void advance() {
    --under_way_;
    offset_ = offset_after(offset_);
    turn_.advance(args_.stages);
    if (!tokens_.more()) return;
    ptx::bulk_wait_read<1>();
    __syncwarp();
    load();
    tokens_.prepare();
    __syncwarp();  // other lanes read the token that load() has noted
  }

 private:
  [[nodiscard]] __device__ std::byte* stage(int number) const {
    return parts_.stages + static_cast<std::size_t>(number) * args_.x.piece;
  }
  [[nodiscard]] __device__ std::uint32_t bytes_at(std::uint32_t offset) const {
    return min(args_.x.piece, args_.x.bytes - offset);
  }
  // In the row; 0: in that of the next token.
  [[nodiscard]] __device__ std::uint32_t offset_after(std::uint32_t offset) const {
    std::uint32_t const next = offset + args_.x.piece;
    return next < args_.x.bytes ? next : 0;
  }
  __device__ void fill() {
#pragma unroll 1
    for (int turn = 0; turn < args_.stages - 2; ++turn) load();
  }
  __device__ void skip_load() {
    if (!tokens_.more()) return;
    ++under_way_;
    loads_offset_ = offset_after(loads_offset_);
    loads_.advance(args_.stages);
    if (loads_offset_ == 0) tokens_.next();
  }
  __device__ void load() {
    if (!tokens_.more()) return;
    if (lane_ == 0) {
      std::uint64_t* const barrier = &parts_.barriers[loads_.stage];
      parts_.tokens[loads_.stage] = tokens_.token();
      ptx::barrier_expect(barrier, bytes_at(loads_offset_));
      ptx::bulk_load(stage(loads_.stage), args_.x.from + tokens_.token() * args_.x.stride + loads_offset_,
                     bytes_at(loads_offset_), barrier);
    }
    skip_load();
  }

  DispatchKernelArgs const& args_;
  RingParts parts_;
  int lane_;
  int under_way_ = 0;         // pieces that are loaded, or will be, and not stored yet
  std::uint32_t offset_ = 0;  // of the piece of this turn, in its row
  StageTurn turn_;
  TokenTurns tokens_;  // of the next piece to load
  std::uint32_t loads_offset_ = 0;
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
        routes[part] = TokenTurns::shares_tokens(args)
                           ? unresolved_route_of_lane(args, destinations, ring.token(), part * 32)
                           : route_of_lane(args.handle, ring.token(), part * 32);
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
