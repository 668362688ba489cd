// The dispatch kernel: it counts, agrees and finds the places of rows as far as that is not done yet, moves every
// row, and arrives.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/kernels/direct.cuh"
#include "engine/cuda/throughput/kernels/metadata.cuh"
#include "engine/cuda/throughput/kernels/resolve.cuh"
#include "engine/cuda/throughput/kernels/rows.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int dispatch_warps = count_threads / 32;
inline constexpr int most_row_warps = 12;
[[maybe_unused]] inline constexpr int most_stages = 8;

extern __shared__ std::byte dynamic_shared[];

// Dynamic shared memory: the rings of the warps that move rows. Counting takes the end of it, before rows move.
struct SharedPlan {
  std::size_t ring;      // bytes of a warp's ring
  std::size_t counting;  // where counting begins
  std::size_t bytes;
};

__host__ __device__ inline SharedPlan shared_plan(DispatchKernelArgs const& args) {
  std::size_t const ring = static_cast<std::size_t>(args.stages) * args.x.piece;
  std::size_t const rings = args.row_warps * ring;
  if (args.start != DispatchStart::notify) return {ring, rings, rings};
  std::size_t const counting = rings > sizeof(CountShared) ? (rings - sizeof(CountShared)) / 16 * 16 : 0;
  return {ring, counting, rings > sizeof(CountShared) ? rings : sizeof(CountShared)};
}

// This block's part in a call: whether it speaks for the rank, and whether rows go directly.
struct BlockPart {
  bool speaks;
  bool directly;

  // Does the last warp publish to the host what arrives, while the others move rows? They do not wait for its
  // writes to the host's memory, which is far.
  [[nodiscard]] __device__ bool publishes() const { return speaks && directly; }
};
static_assert(most_row_warps + 2 <= dispatch_warps, "some warp fills rows, and one may publish");

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// The ring of a warp that moves rows.
__device__ PieceRing ring_of(DispatchKernelArgs const& args, int warp) {
  __shared__ std::uint64_t barriers[most_row_warps][most_stages];
  __shared__ std::uint32_t tokens[most_row_warps][most_stages];
  std::byte* const stages = align_ring(dynamic_shared) + warp * shared_plan(args).ring;
  return {args, {warp, args.row_warps}, {stages, barriers[warp], tokens[warp]}};
}

// Does the warp's ring lie clear of what counts? Then it starts before rows have a place to go to.
__device__ bool starts_ring_early(DispatchKernelArgs const& args, int warp) {
  SharedPlan const plan = shared_plan(args);
  return (warp + 1) * plan.ring <= plan.counting;
}

#endif

// Comes behind what peers wait for, and before this block waits for them.
__device__ void start_rings_early(DispatchKernelArgs const& args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (args.stages > 0 && warp < args.row_warps && starts_ring_early(args, warp)) ring_of(args, warp).start();
#endif
}

// For a call that has failed.
__device__ void drop_rows(DispatchKernelArgs const& args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (args.stages > 0 && warp < args.row_warps && starts_ring_early(args, warp)) ring_of(args, warp).drop();
#endif
}

__device__ void move_rows(DispatchKernelArgs const& args, Destination const* destinations, int warp) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (args.stages > 0) {
    PieceRing ring = ring_of(args, warp);
    if (starts_ring_early(args, warp)) {
      ring.resume();
    } else {
      ring.start();
    }
    return move_rows_in_bulk(args, destinations, ring);
  }
#endif
  move_rows_by_lanes(args, destinations, {warp, args.row_warps});
}

// Some warps of a block move rows, and the others do the rest. `own_rows`: received, without those of a worst case.
__device__ void move_phase(DispatchKernelArgs const& args, Destination const* destinations, std::int64_t own_rows,
                           BlockPart part) {
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp < args.row_warps) return move_rows(args, destinations, warp);
  int const index = warp - args.row_warps;
  int const others = dispatch_warps - args.row_warps;
  bool const is_publisher = warp + 1 == dispatch_warps;
  if (is_publisher && part.publishes()) {
    note_received(args);
    ptx::block_arrive();  // peers may make their next call when this rank has arrived
    return publish_received(args);
  }
  if (is_publisher && blockIdx.x == 0 && threadIdx.x % 32 == 0)
    publish_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
  metadata_phase(args, destinations, {index, part.publishes() ? others - 1 : others});
  int const blocks = static_cast<int>(gridDim.x);
  int const fillers = others - 1;  // the same in all blocks
  if (!is_publisher)
    padding_phase(args, destinations[args.peers.rank], own_rows,
                  {static_cast<int>(blockIdx.x) * fillers + index, blocks * fillers});
}

// A dispatch of which nothing is known yet. Returns false in all threads of a block that finds that the call fails.
__device__ bool find_new_places(DispatchKernelArgs const& args, std::uint64_t epoch, Destination* destinations,
                                std::int64_t& own_rows, BlockPart& part) {
  CountShared& shared = *reinterpret_cast<CountShared*>(align_ring(dynamic_shared) + shared_plan(args).counting);
  part.speaks = open_phase(args, epoch, shared);
  ptx::fence_proxy_async_shared();  // the copy engine writes there next
  start_rings_early(args);
  bool const agree = hear_peers(args, epoch, part.speaks);
  part.directly = agree && goes_directly(args);
  stamp(args.peers, Stamp::agreed, part.speaks);
  if (part.directly) {
    bool const good = direct_phase(args, destinations, own_rows);
    if (part.speaks && !good) publish_counts(args);
    return good;
  }
  if (part.speaks) {
    if (agree) {
      place_and_answer(args, epoch, shared);
      ptx::fence_proxy_async_shared();  // as above, for what this block did since
    } else {
      publish_counts(args);
    }
  }
  return agree && answer_phase(args, epoch, destinations);
}

// Where rows go. Returns false in all threads of a block that finds that the call fails.
__device__ bool find_places(DispatchKernelArgs const& args, std::uint64_t epoch, Destination* destinations,
                            std::int64_t& own_rows, BlockPart& part) {
  if (args.start == DispatchStart::notify) return find_new_places(args, epoch, destinations, own_rows, part);
  if (args.start == DispatchStart::counted) {
    if (blockIdx.x == 0)
      publish_answers(args, epoch, {args.refused ? refused_offset : args.block_offset, args.shape.rows});
    start_rings_early(args);
    return answer_phase(args, epoch, destinations);
  }
  if (blockIdx.x == 0) announce_dispatch(args, epoch, args.digest, args.shape.rows);
  start_rings_early(args);
  return hear_peers(args, epoch, true) && cached_phase(args, destinations);
}

// The first warp of the block that comes last calls this, which sees what the handle says of local experts: whoever
// noted that has counted itself since, in is_last_warp(), and a handle of an earlier call was complete before.
__device__ void add_received(DispatchKernelArgs const& args) {
  ReceivedNumbers const& received = args.received;
  int const local = args.experts.count(args.peers.rank);
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x % 32); expert < local; expert += 32) {
    std::int32_t const rows = args.handle.real[expert];
    if (received.wide)
      static_cast<std::int64_t*>(received.to)[expert * received.stride] += rows;
    else
      static_cast<std::int32_t*>(received.to)[expert * received.stride] += rows;
  }
}

__global__ void __launch_bounds__(count_threads, 1)
    dispatch_kernel(__grid_constant__ DispatchKernelArgs const args) {
  __shared__ Destination destinations[max_node_ranks];
  __shared__ std::int64_t own_rows;
  DeviceState* const state = state_of(args.peers);
  ptx::wait_for_kernel_before();
  std::uint64_t const epoch = state->epoch + (args.start == DispatchStart::counted ? 0 : 1);
  // Any block publishes the tickets, because the blocks that began before the failure may not have done so.
  if (block_has_failed(args.peers)) {
    if (threadIdx.x == 0) publish_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
    if (threadIdx.x == 0) publish_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
    return skip_call(args.peers, epoch);
  }
  bool const is_last =
      blockIdx.x + 1 == gridDim.x;  // it often speaks for the rank, so its times follow one another
  stamp(args.peers, Stamp::started, is_last);
  BlockPart part{false, false};
  bool const good = find_places(args, epoch, destinations, own_rows, part);
  stamp(args.peers, Stamp::answered, args.start == DispatchStart::notify ? part.speaks : is_last);
  if (good) {
    ptx::fence_proxy_async();  // what receivers did in their blocks before they announced comes before our copies
    if (!part.directly && threadIdx.x == 0) own_rows = *args.handle.rows;
    resolve_phase(args, destinations);
    move_phase(args, destinations, own_rows, part);
  } else {
    if (blockIdx.x == 0 && threadIdx.x == 0)
      publish_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
    drop_rows(args);
  }
  if (good && part.publishes() && threadIdx.x / 32 + 1 == dispatch_warps) return;  // it has arrived at the barrier
  if (!is_last_warp<Readers::peers>(&state->blocks_done)) return;
  stamp(args.peers, Stamp::moved);
  if (threadIdx.x == 0) {
    state->epoch = epoch;
    state->tokens_taken = 0;
  }
  if (!good || __any_sync(~0U, has_failed(args.peers))) return;
  bool const complete = meet_peers(args.peers, args.waiting, args.peers.control.arrived, epoch, WaitPoint::arrive);
  if (complete && args.received.to != nullptr) add_received(args);
  // A replayed graph comes with an old number.
  if (complete && threadIdx.x == 0 && state->complete < args.number) state->complete = args.number;
  stamp(args.peers, Stamp::closed);
}

}  // namespace

cudaError_t load_dispatch() {
  return allow_all_memory(dispatch_kernel);
}

std::size_t dispatch_shared_bytes() {
  return ring_room(dispatch_kernel);
}

cudaError_t launch_dispatch(DispatchKernelArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(dispatch_kernel, args, {blocks, count_threads, ring_alignment + shared_plan(args).bytes},
                     stream);
}

}  // namespace switchyard::cuda
