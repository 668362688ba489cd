// Pull, by the copy engine. Warps work in teams: one warp of a team asks for pieces of a token's rows, which travel
// into a ring of stages in shared memory, and the others sum up what has come, a lane 16 bytes of each row.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"
#include "engine/cuda/throughput/kernels/pull.cuh"

namespace switchyard::cuda {

inline constexpr int team_askers = 2;
inline constexpr int team_warps = team_askers + pull_lanes / 32;
inline constexpr int all_team_warps = pull_teams * team_warps;
inline constexpr int weight_warps = 4;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// What travels into one stage, as the asking warp tells the others.
struct PullStage {
  std::uint64_t full;    // barrier: told, and its bytes are there
  std::uint64_t empty;   // barrier: all of the team's other warps have read it
  std::int32_t token;    // -1: no more
  std::uint32_t offset;  // of the piece in a row
  std::uint32_t bytes;
  std::int32_t rows;
  bool begins;  // the sum of this piece
  bool ends;
  float weights[most_rows_together];
};

// A team's ring. Stages are taken in turn by both sides.
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

struct StageTurn {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1U;
  }
};

// A token's routes: lane i has i and i + 32; rank -1: none.
struct TokenRoutes {
  DeviceRoute low{0, -1, -1};
  DeviceRoute high{0, -1, -1};
};

// A warp of a team that asks; a team's askers take stages in turn, and a block's teams pieces. What is done for
// every piece is kept short: it bounds the rate at which a team's bytes move.
class PullAsker {
 public:
  struct Place {
    int team;
    int asker;
  };

  __device__ PullAsker(CombineArgs const& args, SourceRows const* sources, PullRing const& ring, Place place)
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
      next = routes_of(index + 1);  // arrives meanwhile
      int piece = first_piece;
      for (LaneRow row = row_of(routes, 0); piece < pieces_; piece += pull_teams)
        ask_piece({static_cast<std::int32_t>(BlockTokens::token(index)), piece}, routes, row);
      first_piece = piece - pieces_;
    }
    if (my_turn()) ask({.token = -1, .offset = 0, .begins = false, .ends = false}, {nullptr, 1.0F});
  }

 private:
  struct Item {
    std::int32_t token;
    std::uint32_t offset;
    bool begins;
    bool ends;
  };
  // A lane's row; null: none.
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

  // Of the rows of a group, which travel together; groups never straddle the halves of the routes.
  [[nodiscard]] __device__ LaneRow row_of(TokenRoutes const& routes, int group) const {
    DeviceRoute route = routes.low;
    if (groups_ > 1) {
      DeviceRoute const& half = group * ring_.rows < 32 ? routes.low : routes.high;
      int const from = (group * ring_.rows + lane_) % 32;
      route.row = __shfl_sync(~0U, half.row, from);
      route.rank = static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(half.rank), from));
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

  // `row`: of the first group.
  __device__ void ask_piece(Piece const& piece, TokenRoutes const& routes, LaneRow row) {
    for (int group = 0; group < groups_; ++group) {
      if (group > 0) row = row_of(routes, group);
      if (!my_turn()) continue;
      ask({.token = piece.token,
           .offset = static_cast<std::uint32_t>(piece.number) * ring_.piece,
           .begins = group == 0,
           .ends = group + 1 == groups_},
          row);
    }
  }

  // Moves on to the next stage; is it for this warp to fill?
  [[nodiscard]] __device__ bool my_turn() {
    stage_ = turn_;
    turn_.advance(ring_.count);
    reused_ = reused_ || reused_next_;
    if (turn_.stage == 0) reused_next_ = true;
    mine_ = mine_ + 1 == team_askers ? 0 : mine_ + 1;
    return mine_ == place_.asker;
  }

  // Lane i asks for row i's piece.
  __device__ void ask(Item const& item, LaneRow const& row) {
    PullStage& stage = ring_.stages[stage_.stage];
    if (reused_) ptx::barrier_wait(&stage.empty, stage_.parity ^ 1U);  // pairs with PullSummer::run()
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
    // Release: what the lanes wrote above; pairs with the barrier_wait() of the summing warps.
    if (lane_ == 0) ptx::barrier_expect(&stage.full, static_cast<std::uint32_t>(rows) * bytes);
    __syncwarp();
    if (row.at != nullptr)
      ptx::bulk_load(ring_.row_of(stage_.stage, lane_), row.at + item.offset, bytes, &stage.full);
  }

  CombineArgs const& args_;
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

// `thread`: of those of the team that sum. Loops stay rolled: code that does not fit into an SM's cache of
// instructions costs more than the loops do.
template <typename Element>
class PullSummer {
 public:
  __device__ PullSummer(CombineArgs const& args, PullRing const& ring, int thread)
      : args_(args), ring_(ring), at_(static_cast<std::uint32_t>(thread) * 16) {}

  __device__ void run() {
    for (StageTurn turn;; turn.advance(ring_.count)) {
      PullStage& stage = ring_.stages[turn.stage];
      ptx::barrier_wait(&stage.full, turn.parity);  // pairs with PullAsker::ask(), and with its copies
      std::int32_t const token = stage.token;
      if (token < 0) return;
      std::uint32_t const offset = stage.offset + at_;
      bool const inside = at_ < stage.bytes;
      bool const ends = stage.ends;
      if (inside) add(stage, turn.stage);
      __syncwarp();
      // Release: the stage has been read; pairs with the barrier_wait() in PullAsker::ask().
      if (threadIdx.x % 32 == 0) ptx::barrier_arrive(&stage.empty);
      if (inside && ends) finish(token, offset);
    }
  }

 private:
  using Values = Vector<Element, uint4>;

  __device__ void add(PullStage const& stage, int which) {
    bool const weighted = args_.row_weights.data != nullptr;
    std::uint32_t from = ptx::shared_address(ring_.row_of(which, 0)) + at_;
    int const rows = stage.rows;
    int row = 0;
    Values values;
    if (stage.begins) {
      sum_ = {};
      if (rows == 0) return;
      values.unit = ptx::load_shared(from);
      sum_.add(values, stage.weights[0], weighted, true);
      row = 1;
      from += ring_.piece;
    }
#pragma unroll 1
    for (; row < rows; ++row, from += ring_.piece) {
      values.unit = ptx::load_shared(from);
      sum_.add(values, stage.weights[row], weighted, false);
    }
  }

  // Biases, and out.
  __device__ void finish(std::int32_t token, std::uint32_t offset) {
#pragma unroll 1
    for (int which = 0; which < 2; ++which) {
      if (args_.bias[which] == nullptr) continue;
      Values values;
      values.unit = *reinterpret_cast<uint4 const*>(args_.bias[which] + token * args_.bias_stride[which] + offset);
      sum_.add(values, 1.0F, false, false);
    }
    Values result;
#pragma unroll
    for (int i = 0; i < Values::size; ++i) result.elements[i] = Element::narrow(sum_.of[i]);
    *reinterpret_cast<uint4*>(args_.out + token * args_.out_stride + offset) = result.unit;
  }

  CombineArgs const& args_;
  PullRing ring_;
  std::uint32_t at_;  // in a piece
  Sum<Element, uint4> sum_{};
};

using PullStages = PullStage[pull_teams][most_pull_stages];

// The same for all types of elements.
__device__ inline PullStages& pull_stages() {
  __shared__ PullStages stages;
  return stages;
}

// All threads of the block.
__device__ inline void start_rings(PullStages& stages) {
  for (int i = static_cast<int>(threadIdx.x); i < pull_teams * most_pull_stages;
       i += static_cast<int>(blockDim.x)) {
    PullStage& stage = stages[i / most_pull_stages][i % most_pull_stages];
    ptx::barrier_init(&stage.full, 1);
    ptx::barrier_init(&stage.empty, pull_lanes / 32);
    ptx::fence_barrier_init();
  }
  __syncthreads();
}

// What a block's warps beside the teams do.
__device__ inline void gather_all_weights(CombineArgs const& args, SourceRows const* sources, int warp) {
  if (args.out_weights == nullptr) return;
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * weight_warps;
  for (std::int64_t token = blockIdx.x * weight_warps + warp; token < args.handle.num_tokens; token += step)
    gather_weights(args, sources, token);
}

template <typename Element>
__device__ inline void pull_by_bulk_copies(CombineArgs const& args, SourceRows const* sources, PullStages& stages,
                                           std::byte* rings) {
  start_rings(stages);
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
  if (place < team_askers) return PullAsker(args, sources, ring, {team, place}).run();
  PullSummer<Element>(args, ring, static_cast<int>(threadIdx.x) - (team * team_warps + team_askers) * 32).run();
}

#endif

// The widest unit that all addresses and lengths allow, but no narrower than an element.
template <typename Element>
__device__ inline void pull_elements(CombineArgs const& args, SourceRows const* sources, std::byte* rings) {
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

__device__ inline void pull_phase(CombineArgs const& args, SourceRows const* sources, std::byte* rings) {
  switch (args.dtype) {
    case DType::bf16: return pull_elements<Bf16>(args, sources, rings);
    case DType::f16: return pull_elements<F16>(args, sources, rings);
    default: return pull_elements<F32>(args, sources, rings);
  }
}

}  // namespace switchyard::cuda
