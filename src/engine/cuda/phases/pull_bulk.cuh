// Pull, by the copy engine: pieces of a token's rows travel into a warp's ring in shared memory while it sums the
// pieces before.
#pragma once

#include "engine/cuda/phases/pull.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"

namespace switchyard::cuda {

inline constexpr int pull_warps = 12;
inline constexpr int pull_stages = 2;
inline constexpr int pull_rows = 8;                // that travel together
inline constexpr std::uint32_t pull_piece = 1024;  // bytes of each
inline constexpr std::size_t pull_shared_bytes =
    static_cast<std::size_t>(pull_warps) * pull_stages * pull_rows * pull_piece + 128;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// One step of a warp's work: `pull_rows` routes of a token, one piece of their rows.
struct PullStep {
  std::int64_t token;
  std::uint32_t offset;  // of the piece in a row
  std::uint32_t bytes;
  int first;  // route
};

// The steps of all warps of all blocks, dealt out by pieces, so that few tokens keep all of them busy.
class PullSteps {
 public:
  __device__ PullSteps(CombineArgs const& args, int warp)
      : pieces_((args.x.row_bytes + args.piece - 1) / args.piece),
        groups_((args.handle.width + pull_rows - 1) / pull_rows),
        row_bytes_(args.x.row_bytes),
        piece_(args.piece),
        first_(static_cast<std::int64_t>(blockIdx.x) * pull_warps + warp),
        stride_(static_cast<std::int64_t>(gridDim.x) * pull_warps) {
    std::int64_t const items = args.handle.num_tokens * pieces_;
    items_ = items > first_ ? (items - first_ + stride_ - 1) / stride_ : 0;
  }
  [[nodiscard]] __device__ std::int64_t count() const { return items_ * groups_; }
  [[nodiscard]] __device__ PullStep at(std::int64_t index) const {
    std::int64_t const item = first_ + index / groups_ * stride_;
    std::uint32_t const offset = static_cast<std::uint32_t>(item % pieces_) * piece_;
    return {.token = item / pieces_,
            .offset = offset,
            .bytes = min(piece_, row_bytes_ - offset),
            .first = static_cast<int>(index % groups_) * pull_rows};
  }
  [[nodiscard]] __device__ bool ends_item(PullStep const& step) const {
    return step.first + pull_rows >= groups_ * pull_rows;
  }

 private:
  std::int64_t pieces_;
  int groups_;
  std::uint32_t row_bytes_;
  std::uint32_t piece_;
  std::int64_t first_;
  std::int64_t stride_;
  std::int64_t items_;
};

// What of a step has been asked for; lane i < pull_rows knows row i.
struct PullRows {
  std::byte const* row;
  float weight;
  int used;
};

__device__ inline PullRows rows_of_step(CombineArgs const& args, SourceRows const* sources, PullStep const& step) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const index = step.first + lane;
  DeviceRoute route{0, -1, -1};
  if (lane < pull_rows && index < args.handle.width)
    route = args.handle.routes[step.token * args.handle.width + index];
  unsigned const taken = __ballot_sync(~0U, route.rank >= 0);
  PullRows rows{nullptr, 1.0F, __popc(taken)};
  if (route.rank < 0) return rows;
  SourceRows const& from = sources[route.rank];
  rows.row = from.x + static_cast<std::int64_t>(route.row) * args.x.row_bytes;
  if (args.row_weights.data != nullptr) rows.weight = from.row_weights[route.row];
  return rows;
}

template <typename Element>
class PullWarp {
 public:
  __device__ PullWarp(CombineArgs const& args, SourceRows const* sources, std::byte* stages,
                      std::uint64_t* barriers)
      : args_(args),
        sources_(sources),
        steps_(args, static_cast<int>(threadIdx.x / 32)),
        stages_(stages),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x % 32)) {
    if (lane_ == 0) {
      for (int stage = 0; stage < pull_stages; ++stage) ptx::barrier_init(&barriers_[stage], 1);
      ptx::fence_barrier_init();
    }
    __syncwarp();
  }

  __device__ void run() {
    std::int64_t const count = steps_.count();
    PullRows rows[pull_stages];
    for (int stage = 0; stage < pull_stages; ++stage) {
      if (stage < count) rows[stage] = load(stage, stage);
    }
    for (std::int64_t base = 0; base < count; base += pull_stages) {
#pragma unroll
      for (int stage = 0; stage < pull_stages; ++stage) {
        std::int64_t const index = base + stage;
        if (index >= count) return;
        ptx::barrier_wait(&barriers_[stage], static_cast<std::uint32_t>(index / pull_stages) & 1U);
        add(steps_.at(index), rows[stage], stage);
        __syncwarp();  // all lanes have read the stage
        if (index + pull_stages < count) rows[stage] = load(index + pull_stages, stage);
      }
    }
  }

 private:
  using Storage = typename Element::Storage;
  using Values = Vector<Element, uint4>;
  static constexpr int units = pull_piece / 16 / 32;  // of 16 bytes, a lane

  // Lane i asks for row i's piece.
  __device__ PullRows load(std::int64_t index, int stage) {
    PullStep const step = steps_.at(index);
    PullRows const rows = rows_of_step(args_, sources_, step);
    if (lane_ == 0) ptx::barrier_expect(&barriers_[stage], static_cast<std::uint32_t>(rows.used) * step.bytes);
    __syncwarp();
    if (rows.row != nullptr)
      ptx::bulk_load(stage_row(stage, lane_), rows.row + step.offset, step.bytes, &barriers_[stage]);
    return rows;
  }

  __device__ std::byte* stage_row(int stage, int row) const {
    return stages_ + (stage * pull_rows + row) * static_cast<int>(pull_piece);
  }

  __device__ void add(PullStep const& step, PullRows const& rows, int stage) {
    bool const weighted = args_.row_weights.data != nullptr;
    for (int row = 0; row < rows.used; ++row) {
      float const weight = __shfl_sync(~0U, rows.weight, row);
      auto const* const from = reinterpret_cast<uint4 const*>(stage_row(stage, row));
#pragma unroll
      for (int unit = 0; unit < units; ++unit) {
        Values values;
        values.unit = from[unit * 32 + lane_];
        sums_[unit].add(values, weight, weighted, step.first + row == 0);
      }
    }
    if (step.first == 0 && rows.used == 0) clear();
    if (steps_.ends_item(step)) finish(step);
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
  PullSteps steps_;
  std::byte* stages_;
  std::uint64_t* barriers_;
  int lane_;
  Sum<Element, uint4> sums_[units];
};

template <typename Element>
__device__ inline void pull_by_bulk_copies(CombineArgs const& args, SourceRows const* sources, std::byte* shared) {
  __shared__ std::uint64_t barriers[pull_warps][pull_stages];
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp < pull_warps) {
    std::size_t const ring = static_cast<std::size_t>(pull_stages) * pull_rows * pull_piece;
    PullWarp<Element>(args, sources, shared + warp * ring, barriers[warp]).run();
    return;
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
