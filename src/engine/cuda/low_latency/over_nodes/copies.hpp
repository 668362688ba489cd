// What the kernel of low-latency calls over nodes copies between the caller's tensors and results in memory of the
// GPU, and pinned memory of the host, where the host's engine has its slots.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace switchyard::cuda {

// The parts of a frame's result in the host's slots, by number.
enum class Part : std::uint32_t { x, scales, source_token, counts, ranges, topk_idx, topk_weights, outputs };
inline constexpr std::size_t num_parts = 8;

// Where the host's engine has a frame's result, in pinned memory. The thread that makes the host's calls writes it
// before it raises CallEnd::done; kernels that come behind that in their stream read it.
struct HostResult {
  std::byte* parts[num_parts];
  std::int32_t const* counts;  // rows of each group: those of an expert, or of a source
  std::uint64_t use;           // whose result it is: HostUse::number; 0: there is none
};

// How the latest receive half ended, in pinned memory, one for a buffer: its calls come one after another.
struct CallEnd {
  std::uint32_t done;  // the thread sets it to 1, the caller's stream waits for that, and its kernel sets it to 0
  std::uint32_t good;  // 0: the call has failed, and nothing is copied
};

// Groups of rows of `bytes` adjacent bytes. On the host they lie at `host`, or, if that is null, at a part of the
// frame's result.
struct CopyPlane {
  std::byte* device = nullptr;
  std::byte* host = nullptr;
  std::uint64_t device_group = 0;  // bytes from one group to the next, and from one row to the next
  std::uint64_t device_row = 0;
  std::uint64_t host_group = 0;
  std::uint64_t host_row = 0;
  std::uint64_t bytes = 0;
  std::uint32_t groups = 0;
  std::uint32_t rows = 0;
  Part part = Part::x;
  std::uint32_t counted = 0;  // 1: the rows of group g are counts[g] times as long
};

// device[i] += host[i]
struct CopySum {
  std::byte* device = nullptr;
  std::byte const* host = nullptr;
  std::uint32_t count = 0;
  std::uint32_t bytes = 0;  // of a number: 4 or 8
};

struct CopyArgs {
  static constexpr std::uint32_t most_planes = 8;
  static constexpr std::uint32_t most_sums = 2;
  CopyPlane planes[most_planes] = {};
  CopySum sums[most_sums] = {};
  std::uint32_t num_planes = 0;
  std::uint32_t num_sums = 0;
  HostResult const* result = nullptr;  // null: no plane is counted, or a part
  std::uint64_t use = 0;               // nothing is copied unless the result is this one's
  CallEnd* end = nullptr;              // null: not behind a receive half
  std::uint32_t num_counts = 0;        // of result->counts
  std::uint32_t to_host = 0;           // 1: from the GPU to the host
};

cudaError_t launch_copies(CopyArgs const& args, int blocks, cudaStream_t stream);
cudaError_t load_copies();

}  // namespace switchyard::cuda
