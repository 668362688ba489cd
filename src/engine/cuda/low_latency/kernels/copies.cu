// The kernel of low-latency calls over nodes; see low_latency/over_nodes/copies.hpp. It waits for nobody: its
// stream has waited. What it reads of the host was written before that, and the host reads what it writes only
// behind its end, so plain loads and stores are enough.
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/low_latency/over_nodes/copies.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int copy_threads = 512;
inline constexpr std::uint32_t copy_warps = copy_threads / 32;

// What each lane loads before it stores any: memory of the host is far.
inline constexpr std::uint32_t units_ahead = 8;
inline constexpr std::uint32_t piece_bytes = units_ahead * 32 * sizeof(uint4);

struct Warp {
  std::uint32_t lane = threadIdx.x % 32;
  std::uint32_t number = blockIdx.x * copy_warps + threadIdx.x / 32;
  std::uint32_t all = gridDim.x * copy_warps;
};

template <typename Unit>
__device__ void copy_units(std::byte* to, std::byte const* from, std::uint32_t bytes, std::uint32_t lane) {
  std::uint32_t const units = bytes / sizeof(Unit);
  auto* const out = reinterpret_cast<Unit*>(to);
  auto const* const in = reinterpret_cast<Unit const*>(from);
  for (std::uint32_t base = lane; base < units; base += units_ahead * 32) {
    Unit values[units_ahead];
#pragma unroll
    for (std::uint32_t i = 0; i < units_ahead; ++i)
      if (base + i * 32 < units) values[i] = in[base + i * 32];
#pragma unroll
    for (std::uint32_t i = 0; i < units_ahead; ++i)
      if (base + i * 32 < units) out[base + i * 32] = values[i];
  }
}

__device__ void copy_piece(std::byte* to, std::byte const* from, std::uint32_t bytes, std::uint32_t lane) {
  std::uint64_t const alignment =
      reinterpret_cast<std::uint64_t>(to) | reinterpret_cast<std::uint64_t>(from) | bytes;
  if (alignment % sizeof(uint4) == 0)
    copy_units<uint4>(to, from, bytes, lane);
  else if (alignment % sizeof(std::uint32_t) == 0)
    copy_units<std::uint32_t>(to, from, bytes, lane);
  else
    copy_units<std::uint8_t>(to, from, bytes, lane);
}

__device__ std::byte* host_address(CopyArgs const& args, CopyPlane const& plane) {
  return plane.host != nullptr ? plane.host : args.result->parts[static_cast<std::uint32_t>(plane.part)];
}

// Pieces of all planes, one after another, go to the warps in turn. Returns how many there were up to the end of
// this plane.
__device__ std::uint64_t copy_plane(CopyArgs const& args, CopyPlane const& plane, std::int32_t const* counts,
                                    Warp const& warp, std::uint64_t before) {
  std::byte* const host = host_address(args, plane);
  for (std::uint32_t group = 0; group < plane.groups; ++group) {
    std::uint64_t const bytes = plane.counted != 0 ? plane.bytes * counts[group] : plane.bytes;
    std::uint64_t const pieces = (bytes + piece_bytes - 1) / piece_bytes;
    std::uint64_t const all = pieces * plane.rows;
    for (std::uint64_t i = (warp.number + warp.all - before % warp.all) % warp.all; i < all; i += warp.all) {
      std::uint64_t const row = i / pieces;
      std::uint64_t const at = i % pieces * piece_bytes;
      std::byte* const on_device = plane.device + group * plane.device_group + row * plane.device_row + at;
      std::byte* const on_host = host + group * plane.host_group + row * plane.host_row + at;
      auto const length = static_cast<std::uint32_t>(min(bytes - at, static_cast<std::uint64_t>(piece_bytes)));
      if (args.to_host != 0)
        copy_piece(on_host, on_device, length, warp.lane);
      else
        copy_piece(on_device, on_host, length, warp.lane);
    }
    before += all;
  }
  return before;
}

template <typename Number>
__device__ void add(CopySum const& sum) {
  for (std::uint32_t i = blockIdx.x * copy_threads + threadIdx.x; i < sum.count; i += gridDim.x * copy_threads)
    reinterpret_cast<Number*>(sum.device)[i] += reinterpret_cast<Number const*>(sum.host)[i];
}

__device__ bool is_to_copy(CopyArgs const& args) {
  if (args.end != nullptr && args.end->good == 0) return false;
  return args.result == nullptr || args.result->use == args.use;
}

__global__ void __launch_bounds__(copy_threads) copy_kernel(__grid_constant__ CopyArgs const args) {
  extern __shared__ std::int32_t counts[];
  // The next receive half begins behind this kernel, and its end is then written again.
  if (args.end != nullptr && blockIdx.x == 0 && threadIdx.x == 0) args.end->done = 0;
  if (!is_to_copy(args)) return;
  for (std::uint32_t i = threadIdx.x; i < args.num_counts; i += copy_threads) counts[i] = args.result->counts[i];
  __syncthreads();
  Warp const warp;
  std::uint64_t pieces = 0;
  for (std::uint32_t i = 0; i < args.num_planes; ++i)
    pieces = copy_plane(args, args.planes[i], counts, warp, pieces);
  for (std::uint32_t i = 0; i < args.num_sums; ++i) {
    if (args.sums[i].bytes == sizeof(std::int64_t))
      add<std::int64_t>(args.sums[i]);
    else
      add<std::int32_t>(args.sums[i]);
  }
}

}  // namespace

cudaError_t launch_copies(CopyArgs const& args, int blocks, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(copy_threads);
  config.dynamicSmemBytes = args.num_counts * sizeof(std::int32_t);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, copy_kernel, args);
}

cudaError_t load_copies() {
  return load_kernel(copy_kernel);
}

}  // namespace switchyard::cuda
