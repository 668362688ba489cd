// Pull, by the copy engine: pieces of a token's rows travel into a warp's ring in shared memory while it sums the
// pieces before.
#pragma once

#include "engine/cuda/phases/pull.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"

namespace switchyard::cuda {

inline constexpr int pull_warps = 12;
inline constexpr int pull_slots = 16;              // of a warp's ring; a slot holds a piece of a row
inline constexpr std::uint32_t pull_piece = 1024;  // bytes
inline constexpr std::size_t pull_shared_bytes =
    static_cast<std::size_t>(pull_warps) * pull_slots * pull_piece + 128;

// The ring as stages of `rows` slots, which travel together: as many as tokens have rows, so that no slot is idle.
template <int rows_together>
struct PullShape {
  static constexpr int rows = rows_together;
  static constexpr int stages = pull_slots / rows_together;
};
inline constexpr int most_pull_stages = PullShape<2>::stages;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// One step of a warp's work: one piece of the rows of some routes of a token.
struct PullStep {
  std::int32_t token;    // -1: past the end
  std::uint32_t offset;  // of the piece in a row
  std::uint32_t bytes;
  std::int32_t first;  // route
  DeviceRoute route;   // first + lane, in as many lanes as rows travel together
  int used;            // routes; known once asked for
};

// The steps of one warp. Pieces of all tokens are dealt to all warps of all blocks, so that few tokens keep all of
// them busy. Moves on by additions: divisions would cost more than the sums.
template <typename Shape>
class PullCursor {
 public:
  __device__ PullCursor(CombineArgs const& args, int warp)
      : args_(args),
        pieces_((args.x.row_bytes + args.piece - 1) / args.piece),
        groups_end_((args.handle.width + Shape::rows - 1) / Shape::rows * Shape::rows) {
    auto const begin = static_cast<std::uint32_t>(blockIdx.x) * pull_warps + warp;
    auto const stride = static_cast<std::uint32_t>(gridDim.x) * pull_warps;
    token_ = begin / pieces_;
    piece_ = begin % pieces_;
    token_step_ = stride / pieces_;
    piece_step_ = stride % pieces_;
  }

  // The route is only asked for here; it arrives while other steps are summed up.
  [[nodiscard]] __device__ PullStep next() {
    PullStep step{-1, 0, 0, 0, {0, -1, -1}, 0};
    if (token_ >= args_.handle.num_tokens) return step;
    step.token = static_cast<std::int32_t>(token_);
    step.offset = piece_ * args_.piece;
    step.bytes = min(args_.piece, args_.x.row_bytes - step.offset);
    step.first = first_;
    int const lane = static_cast<int>(threadIdx.x % 32);
    if (lane < Shape::rows && first_ + lane < args_.handle.width)
      step.route = args_.handle.routes[token_ * args_.handle.width + first_ + lane];
    advance();
    return step;
  }
  [[nodiscard]] __device__ bool ends_piece(PullStep const& step) const {
    return step.first + Shape::rows >= groups_end_;
  }

 private:
  __device__ void advance() {
    first_ += Shape::rows;
    if (first_ < groups_end_) return;
    first_ = 0;
    piece_ += piece_step_;
    token_ += token_step_;
    if (piece_ < pieces_) return;
    piece_ -= pieces_;
    ++token_;
  }

  CombineArgs const& args_;
  std::uint32_t pieces_;
  int groups_end_;
  std::int64_t token_ = 0;
  std::uint32_t piece_ = 0;
  std::int64_t token_step_ = 0;
  std::uint32_t piece_step_ = 0;
  int first_ = 0;
};

template <typename Element, typename Shape>
class PullWarp {
 public:
  __device__ PullWarp(CombineArgs const& args, SourceRows const* sources, std::byte* stages,
                      std::uint64_t* barriers)
      : args_(args),
        sources_(sources),
        cursor_(args, static_cast<int>(threadIdx.x / 32)),
        stages_(stages),
        barriers_(barriers),
        weighted_(args.row_weights.data != nullptr),
        lane_(static_cast<int>(threadIdx.x % 32)) {
    if (lane_ == 0) {
      for (int stage = 0; stage < Shape::stages; ++stage) ptx::barrier_init(&barriers_[stage], 1);
      ptx::fence_barrier_init();
    }
    __syncwarp();
  }

  __device__ void run() {
    PullStep steps[Shape::stages];
    PullStep ahead = cursor_.next();
#pragma unroll
    for (int stage = 0; stage < Shape::stages; ++stage) {
      steps[stage] = load(ahead, stage);
      ahead = cursor_.next();
    }
    for (std::uint32_t turn = 0;; ++turn) {
#pragma unroll
      for (int stage = 0; stage < Shape::stages; ++stage) {
        if (steps[stage].token < 0) return;
        ptx::barrier_wait(&barriers_[stage], turn & 1U);
        add(steps[stage], stage);
        __syncwarp();  // all lanes have read the stage
        steps[stage] = load(ahead, stage);
        ahead = cursor_.next();
      }
    }
  }

 private:
  using Values = Vector<Element, uint4>;
  static constexpr int units = pull_piece / 16 / 32;  // of 16 bytes, a lane

  // Lane i asks for row i's piece.
  __device__ PullStep load(PullStep step, int stage) {
    if (step.token < 0) return step;
    bool const mine = step.route.rank >= 0;
    step.used = __popc(__ballot_sync(~0U, mine));
    if (lane_ == 0) ptx::barrier_expect(&barriers_[stage], static_cast<std::uint32_t>(step.used) * step.bytes);
    __syncwarp();
    if (mine) {
      std::byte const* const row = sources_[step.route.rank].x + std::int64_t{step.route.row} * args_.x.row_bytes;
      ptx::bulk_load(stage_row(stage, lane_), row + step.offset, step.bytes, &barriers_[stage]);
    }
    return step;
  }

  __device__ std::byte* stage_row(int stage, int row) const {
    return stages_ + (stage * Shape::rows + row) * static_cast<int>(pull_piece);
  }

  __device__ void add(PullStep const& step, int stage) {
    float weight = 1.0F;
    if (weighted_ && step.route.rank >= 0) weight = sources_[step.route.rank].row_weights[step.route.row];
    if (step.first == 0 && step.used == 0) clear();
    for (int row = 0; row < step.used; ++row) {
      float const factor = weighted_ ? __shfl_sync(~0U, weight, row) : 1.0F;
      auto const* const from = reinterpret_cast<uint4 const*>(stage_row(stage, row));
#pragma unroll
      for (int unit = 0; unit < units; ++unit) {
        Values values;
        values.unit = from[unit * 32 + lane_];
        sums_[unit].add(values, factor, weighted_, step.first + row == 0);
      }
    }
    if (cursor_.ends_piece(step)) finish(step);
  }

  __device__ void clear() {
#pragma unroll
    for (int unit = 0; unit < units; ++unit) sums_[unit] = {};
  }

  // Biases, and out.
  __device__ void finish(PullStep const& step) {
#pragma unroll
    for (int unit = 0; unit < units; ++unit) {
      std::uint32_t const at = step.offset + static_cast<std::uint32_t>(unit * 32 + lane_) * 16;
      if (at >= step.offset + step.bytes) continue;
      for (int which = 0; which < 2; ++which) {
        if (args_.bias[which] == nullptr) continue;
        Values values;
        values.unit =
            *reinterpret_cast<uint4 const*>(args_.bias[which] + step.token * args_.bias_stride[which] + at);
        sums_[unit].add(values, 1.0F, false, false);
      }
      Values result;
#pragma unroll
      for (int i = 0; i < Values::size; ++i) result.elements[i] = Element::narrow(sums_[unit].of[i]);
      *reinterpret_cast<uint4*>(args_.out + step.token * args_.out_stride + at) = result.unit;
    }
  }

  CombineArgs const& args_;
  SourceRows const* sources_;
  PullCursor<Shape> cursor_;
  std::byte* stages_;
  std::uint64_t* barriers_;
  bool weighted_;
  int lane_;
  Sum<Element, uint4> sums_[units];
};

template <typename Element>
__device__ inline void pull_by_bulk_copies(CombineArgs const& args, SourceRows const* sources, std::byte* shared) {
  __shared__ std::uint64_t barriers[pull_warps][most_pull_stages];
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp < pull_warps) {
    std::byte* const ring = shared + static_cast<std::size_t>(warp) * pull_slots * pull_piece;
    if (args.handle.width <= 2) return PullWarp<Element, PullShape<2>>(args, sources, ring, barriers[warp]).run();
    if (args.handle.width <= 4) return PullWarp<Element, PullShape<4>>(args, sources, ring, barriers[warp]).run();
    return PullWarp<Element, PullShape<8>>(args, sources, ring, barriers[warp]).run();
  }
  if (args.out_weights == nullptr) return;
  // The other warps bring the weights back.
  int const others = static_cast<int>(blockDim.x / 32) - pull_warps;
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * others;
  for (std::int64_t token = blockIdx.x * others + warp - pull_warps; token < args.handle.num_tokens; token += step)
    gather_weights(args, sources, token);
}

#endif

// The widest unit that all addresses and lengths allow, but no narrower than an element.
template <typename Element>
__device__ inline void pull_elements(CombineArgs const& args, SourceRows const* sources, std::byte* shared) {
  using Storage = typename Element::Storage;
  auto low =
      reinterpret_cast<std::uintptr_t>(args.out) | static_cast<std::uintptr_t>(args.out_stride) | args.x.row_bytes;
  for (int which = 0; which < 2; ++which) {
    if (args.bias[which] != nullptr)
      low |=
          reinterpret_cast<std::uintptr_t>(args.bias[which]) | static_cast<std::uintptr_t>(args.bias_stride[which]);
  }
  for (int rank = 0; rank < args.peers.world; ++rank) low |= reinterpret_cast<std::uintptr_t>(sources[rank].x);
  if (low % 16 != 0) return pull_tokens<Element, Storage>(args, sources);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (args.piece > 0) return pull_by_bulk_copies<Element>(args, sources, shared);
#endif
  pull_tokens<Element, uint4>(args, sources);
}

__device__ inline void pull_phase(CombineArgs const& args, SourceRows const* sources, std::byte* shared) {
  switch (args.dtype) {
    case DType::bf16: return pull_elements<Bf16>(args, sources, shared);
    case DType::f16: return pull_elements<F16>(args, sources, shared);
    default: return pull_elements<F32>(args, sources, shared);
  }
}

}  // namespace switchyard::cuda
