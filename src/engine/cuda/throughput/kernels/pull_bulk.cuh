// Pull, by the copy engine. Warps work in teams: two warps of a team load pieces of a token's rows into a ring of
// stages in shared memory, and the other warps sum the pieces that have arrived, each lane 16 bytes of every row.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/stage_turn.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"
#include "engine/cuda/throughput/kernels/pull.cuh"

namespace switchyard::cuda {

inline constexpr int team_loaders = 2;
inline constexpr int team_warps = team_loaders + pull_lanes / 32;
inline constexpr int all_team_warps = pull_teams * team_warps;
inline constexpr int weight_warps = 4;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// What travels into one stage, as the loading warp describes it to the summing warps.
struct PullStage {
  std::uint64_t full;    // barrier: the description is written, and the bytes have arrived
  std::uint64_t empty;   // barrier: all summing warps of the team have read the stage
  std::int32_t token;    // -1: nothing more comes
  std::uint32_t offset;  // of the piece in a row
  std::uint32_t bytes;
  std::int32_t rows;
  bool begins;  // the first rows of this piece's sum
  bool ends;    // its last rows
  float weights[most_rows_together];
};

// A team's ring. Both sides take its stages in turn.
struct PullRing {
  PullStage* stages;
  std::byte* bytes;
  int count;
  std::uint32_t piece;
  int rows;

  [[nodiscard]] __device__ std::byte* row_of(int stage, int row) const {
    return bytes + static_cast<std::size_t>(stage * rows + row) * piece;
  }
};

// A token's routes: lane i has routes i and i + 32. A rank of -1 says that there is none.
struct TokenRoutes {
  DeviceRoute low{0, -1, -1};
  DeviceRoute high{0, -1, -1};
};

// A warp of a team that loads. A team's loaders take stages in turn, and a block's teams take pieces in turn. The
// work for a piece is kept short, because it bounds the rate at which a team's bytes move.
class PullLoader {
 public:
  struct Place {
    int team;
    int loader;
  };

  __device__ PullLoader(CombineKernelArgs const& args, SourceRows const* sources, PullRing const& ring, Place place)
      : args_(args),
        sources_(sources),
        ring_(ring),
        place_(place),
        tokens_(args.handle.num_tokens),
        pieces_(static_cast<int>((args.x.row_bytes + ring.piece - 1) / ring.piece)),
        groups_((args.handle.width + ring.rows - 1) / ring.rows),
        lane_(static_cast<int>(threadIdx.x % 32)) {}

  __device__ void run() {
    TokenRoutes next = routes_of(0);
    int first_piece = place_.team;
    for (std::int64_t index = 0; index < tokens_.count; ++index) {
      TokenRoutes const routes = next;
      next = routes_of(index + 1);  // these loads complete while the pieces are requested
      int piece = first_piece;
      for (LaneRow row = row_of(routes, 0); piece < pieces_; piece += pull_teams)
        load_piece({static_cast<std::int32_t>(BlockTokens::token(index)), piece}, routes, row);
      first_piece = piece - pieces_;
    }
    if (my_turn()) load({.token = -1, .offset = 0, .begins = false, .ends = false}, {nullptr, 1.0F});
  }

 private:
  struct Item {
    std::int32_t token;
    std::uint32_t offset;
    bool begins;
    bool ends;
  };
  // A lane's row; null when it has none.
  struct LaneRow {
    std::byte const* at;
    float weight;
  };

  [[nodiscard]] __device__ TokenRoutes routes_of(std::int64_t index) const {
    TokenRoutes routes;
    if (index >= tokens_.count) return routes;
    int const width = args_.handle.width;
    DeviceRoute const* const from = args_.handle.routes + BlockTokens::token(index) * width;
    if (lane_ < width) routes.low = from[lane_];
    if (lane_ + 32 < width) routes.high = from[lane_ + 32];
    return routes;
  }

  // This lane's row of a group, whose rows travel together. A group lies within the low routes or within the high
  // ones.
  [[nodiscard]] __device__ LaneRow row_of(TokenRoutes const& routes, int group) const {
    DeviceRoute route = routes.low;
    if (groups_ > 1) {
      DeviceRoute const& own = group * ring_.rows < 32 ? routes.low : routes.high;
      int const from = (group * ring_.rows + lane_) % 32;
      route.row = __shfl_sync(~0U, own.row, from);
      route.rank = static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(own.rank), from));
    }
    if (lane_ >= ring_.rows || route.rank < 0) return {nullptr, 1.0F};
    SourceRows const& from = sources_[route.rank];
    return {from.x + route.row * from.stride,
            args_.row_weights.data != nullptr ? from.row_weights[route.row] : 1.0F};
  }

  struct Piece {
    std::int32_t token;
    int number;
  };

  // `row` is the lane's row of the first group.
  __device__ void load_piece(Piece const& piece, TokenRoutes const& routes, LaneRow row) {
    for (int group = 0; group < groups_; ++group) {
      if (group > 0) row = row_of(routes, group);
      if (!my_turn()) continue;
      load({.token = piece.token,
            .offset = static_cast<std::uint32_t>(piece.number) * ring_.piece,
            .begins = group == 0,
            .ends = group + 1 == groups_},
           row);
    }
  }

  // Moves on to the next stage, and returns whether this warp fills it.
  [[nodiscard]] __device__ bool my_turn() {
    stage_ = turn_;
    turn_.advance(ring_.count);
    reused_ = reused_ || reused_next_;
    if (turn_.stage == 0) reused_next_ = true;
    mine_ = mine_ + 1 == team_loaders ? 0 : mine_ + 1;
    return mine_ == place_.loader;
  }

  // Lane i loads row i's piece.
  __device__ void load(Item const& item, LaneRow const& row) {
    PullStage& stage = ring_.stages[stage_.stage];
    if (reused_)
      ptx::barrier_wait(&stage.empty, stage_.parity ^ 1U);  // pairs with the arrivals in PullSummer::run()
    int const rows = __popc(__ballot_sync(~0U, row.at != nullptr));
    std::uint32_t const bytes = min(ring_.piece, args_.x.row_bytes - item.offset);
    if (lane_ < most_rows_together) stage.weights[lane_] = row.weight;
    if (lane_ == 0) {
      stage.token = item.token;
      stage.offset = item.offset;
      stage.bytes = bytes;
      stage.rows = rows;
      stage.begins = item.begins;
      stage.ends = item.ends;
    }
    __syncwarp();
    // Releases what the lanes wrote above. Pairs with the barrier_wait() in PullSummer::run().
    if (lane_ == 0) ptx::barrier_expect(&stage.full, static_cast<std::uint32_t>(rows) * bytes);
    __syncwarp();
    if (row.at != nullptr)
      ptx::bulk_load(ring_.row_of(stage_.stage, lane_), row.at + item.offset, bytes, &stage.full);
  }

  CombineKernelArgs const& args_;
  SourceRows const* sources_;
  PullRing ring_;
  Place place_;
  BlockTokens tokens_;
  int pieces_;
  int groups_;
  int lane_;
  StageTurn turn_;
  StageTurn stage_;
  int mine_ = -1;
  bool reused_ = false;
  bool reused_next_ = false;
};

// A thread of a team that sums. Its loops stay rolled: code that does not fit into an SM's instruction cache costs
// more than the loops do.
template <typename Element>
class PullSummer {
 public:
  // `thread` counts the team's threads that sum.
  __device__ PullSummer(CombineKernelArgs const& args, PullRing const& ring, int thread)
      : args_(args), ring_(ring), at_(static_cast<std::uint32_t>(thread) * 16) {}

  __device__ void run() {
    for (StageTurn turn;; turn.advance(ring_.count)) {
      PullStage& stage = ring_.stages[turn.stage];
      ptx::barrier_wait(&stage.full, turn.parity);  // pairs with PullLoader::load(), and with its copies
      std::int32_t const token = stage.token;
      if (token < 0) return;
      std::uint32_t const offset = stage.offset + at_;
      bool const inside = at_ < stage.bytes;
      bool const ends = stage.ends;
      if (inside) add(stage, turn.stage, token, offset);
      __syncwarp();
      // Releases the warp's reads of the stage. Pairs with the barrier_wait() in PullLoader::load().
      if (threadIdx.x % 32 == 0) ptx::barrier_arrive(&stage.empty);
      if (inside && ends) finish(token, offset);
    }
  }

 private:
  using Values = Vector<Element, uint4>;

  // `offset`: of this thread's part in a row.
  __device__ void add(PullStage const& stage, int which, std::int32_t token, std::uint32_t offset) {
    bool const weighted = args_.row_weights.data != nullptr;
    std::uint32_t from = ptx::shared_address(ring_.row_of(which, 0)) + at_;
    int const rows = stage.rows;
    int row = 0;
    Values values;
    if (stage.begins) {
      sum_ = {};
      bool const biased = add_biases(args_, token, offset / sizeof(uint4), sum_);
      if (!biased && rows > 0) {
        values.unit = ptx::load_shared(from);
        sum_.add(values, stage.weights[0], weighted, true);
        row = 1;
        from += ring_.piece;
      }
    }
#pragma unroll 1
    for (; row < rows; ++row, from += ring_.piece) {
      values.unit = ptx::load_shared(from);
      sum_.add(values, stage.weights[row], weighted, false);
    }
  }

  // Stores the sum.
  __device__ void finish(std::int32_t token, std::uint32_t offset) {
    Values result;
#pragma unroll
    for (int i = 0; i < Values::size; ++i) result.elements[i] = Element::narrow(sum_.of[i]);
    *reinterpret_cast<uint4*>(args_.out + token * args_.out_stride + offset) = result.unit;
  }

  CombineKernelArgs const& args_;
  PullRing ring_;
  std::uint32_t at_;  // in a piece
  Sum<Element, uint4> sum_{};
};

using PullStages = PullStage[pull_teams][most_pull_stages];

// A function, so that the kernel has these once for all types of elements.
__device__ inline PullStages& pull_stages() {
  __shared__ PullStages stages;
  return stages;
}

// One thread does it, since each fence takes its time. A barrier of the block comes before the first pull.
__device__ inline void start_rings(PullStages& stages, int count) {
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int team = 0; team < pull_teams; ++team) {
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      ptx::barrier_init(&stages[team][i].full, 1);
      ptx::barrier_init(&stages[team][i].empty, pull_lanes / 32);
    }
  }
  ptx::fence_proxy_async_shared();
}

// The warps of a block that belong to no team do this.
__device__ inline void gather_all_weights(CombineKernelArgs const& args, SourceRows const* sources, int warp) {
  if (args.out_weights == nullptr) return;
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * weight_warps;
  for (std::int64_t token = blockIdx.x * weight_warps + warp; token < args.handle.num_tokens; token += step)
    gather_weights(args, sources, token);
}

template <typename Element>
__device__ inline void pull_by_bulk_copies(CombineKernelArgs const& args, SourceRows const* sources,
                                           PullStages& stages, std::byte* rings) {
  PullPlan const& plan = args.pull;
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp >= all_team_warps) return gather_all_weights(args, sources, warp - all_team_warps);
  int const team = warp / team_warps;
  PullRing const ring{.stages = stages[team],
                      .bytes = rings + team * plan.ring_bytes(),
                      .count = plan.stages,
                      .piece = plan.piece,
                      .rows = plan.rows};
  int const place = warp % team_warps;
  if (place < team_loaders) return PullLoader(args, sources, ring, {team, place}).run();
  PullSummer<Element>(args, ring, static_cast<int>(threadIdx.x) - (team * team_warps + team_loaders) * 32).run();
}

#endif

// What can be done before anything is known of the rows. All threads of a block call this.
__device__ inline void prepare_pull(CombineKernelArgs const& args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (args.pull.stages > 0) start_rings(pull_stages(), args.pull.stages);
#endif
}

// Sums by the widest units that all addresses and lengths allow, down to single elements.
template <typename Element>
__device__ inline void pull_elements(CombineKernelArgs const& args, SourceRows const* sources, std::byte* rings) {
  using Storage = typename Element::Storage;
  auto low = reinterpret_cast<std::uintptr_t>(args.out) | static_cast<std::uintptr_t>(args.out_stride);
  for (int which = 0; which < 2; ++which) {
    if (args.bias[which] == nullptr) continue;
    low |=
        reinterpret_cast<std::uintptr_t>(args.bias[which]) | static_cast<std::uintptr_t>(args.bias_stride[which]);
  }
  for (int rank = 0; rank < args.peers.num_ranks; ++rank) {
    SourceRows const& from = sources[rank];
    low |= reinterpret_cast<std::uintptr_t>(from.x) | static_cast<std::uintptr_t>(from.stride);
  }
  low |= args.x.row_bytes;
  if (low % 16 != 0) return pull_tokens<Element, Storage>(args, sources);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (args.pull.stages > 0) return pull_by_bulk_copies<Element>(args, sources, pull_stages(), rings);
#endif
  pull_tokens<Element, uint4>(args, sources);
}

__device__ inline void pull_phase(CombineKernelArgs const& args, SourceRows const* sources, std::byte* rings) {
  switch (args.dtype) {
    case DType::bf16: return pull_elements<Bf16>(args, sources, rings);
    case DType::f16: return pull_elements<F16>(args, sources, rings);
    default: return pull_elements<F32>(args, sources, rings);
  }
}

}  // namespace switchyard::cuda
