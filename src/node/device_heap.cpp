#include "node/device_heap.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/device_segment.hpp"
#include "memory/device/peer_access.hpp"
#include "memory/device/stream_fence.hpp"
#include "node/agreement.hpp"
#include "node/gpu_memory_choice.hpp"
#include "node/heap_growth.hpp"
#include "node/host_heap.hpp"

namespace switchyard {

namespace {

struct DeviceMemory {
  std::size_t free = 0;
  std::size_t total = 0;
};

DeviceMemory memory_of(int device) {
  CurrentDevice const current(device);
  DeviceMemory memory;
  check_cuda(cudaMemGetInfo(&memory.free, &memory.total), "cudaMemGetInfo");
  return memory;
}

// An eighth of what is free: what a heap takes without need should not be missed by anybody.
std::size_t spare_memory(int device) {
  return memory_of(device).free / 8;
}

// What every rank of the node needs to map a segment, besides its descriptor.
struct DeviceIntroduction {
  std::uint64_t segment_id = 0;
  std::uint64_t segment_bytes = 0;
  std::uint64_t capacity = 0;
  std::uint64_t kind = 0;
  GpuMemoryHandle handle{};
  GpuId gpu{};
  GrowthAddress growth{};
};
static_assert(std::has_unique_object_representations_v<DeviceIntroduction>);  // its bytes are sent as they lie

DeviceIntroduction introduction_of(DeviceSegment const& segment, int device, GrowthAddress const& growth) {
  SharedGpuMemory const shared = segment.shared();
  return {.segment_id = segment.id(),
          .segment_bytes = shared.bytes,
          .capacity = shared.capacity,
          .kind = static_cast<std::uint64_t>(shared.kind),
          .handle = shared.handle,
          .gpu = gpu_id(device),
          .growth = growth};
}

// Maps the segments of all ranks for one rank's GPU.
class SegmentMapper {
 public:
  SegmentMapper(DeviceHeapRequest const& request, GpuMemoryKind kind, std::size_t control_bytes)
      : device_(request.device),
        atomics_(request.atomics),
        kind_(kind),
        control_bytes_(control_bytes),
        visible_(visible_gpus()) {}

  // Throws errors that name the peer.
  [[nodiscard]] std::shared_ptr<DeviceSegment> map(std::size_t rank, DeviceIntroduction const& peer, int fd) const {
    std::shared_ptr<DeviceSegment> segment;
    auto const refusal = refusal_of([&] {
      check(peer);
      segment = map_checked(peer, fd);
    });
    if (refusal)
      throw_error(refusal->code,
                  fmt::format("{} cannot map the segment of rank {} on {}: {}", text_of(gpu_id(device_)), rank,
                              text_of(peer.gpu), refusal->text),
                  {.peer = static_cast<int>(rank)});
    return segment;
  }

 private:
  void check(DeviceIntroduction const& peer) const {
    require(peer.kind == static_cast<std::uint64_t>(kind_), "kind of memory: expected {}, seen {}",
            static_cast<int>(kind_), peer.kind);
    require(peer.segment_bytes > control_bytes_, "size: expected more than {} bytes, seen {}", control_bytes_,
            peer.segment_bytes);
    if (!may_reach(visible_, device_, peer.gpu))
      throw Unsupported("these GPUs cannot reach each other's memory (no peer access)");
    if (atomics_ && !may_add(visible_, device_, peer.gpu))
      throw Unsupported("atomic operations on each other's memory: expected GPUs that have them (by NVLink)");
  }

  // Ranks that are threads of this process share one mapping.
  [[nodiscard]] std::shared_ptr<DeviceSegment> map_checked(DeviceIntroduction const& peer, int fd) const {
    auto segment = DeviceSegment::find_in_process(peer.segment_id, device_);
    if (!segment)
      return DeviceSegment::attach(
          device_,
          {.kind = kind_, .bytes = peer.segment_bytes, .capacity = peer.capacity, .fd = fd, .handle = peer.handle});
    require(segment->capacity() == peer.capacity, "capacity: expected {} bytes, seen {}", segment->capacity(),
            peer.capacity);
    return segment;
  }

  int device_;
  bool atomics_;
  GpuMemoryKind kind_;
  std::size_t control_bytes_;
  std::vector<GpuId> visible_;
};

// The descriptors of all ranks; empty where the kind of memory is not handed over by one.
std::vector<UniqueFd> exchange_descriptors(Node& node, DeviceSegment const& own) {
  SharedGpuMemory const shared = own.shared();
  if (shared.kind == GpuMemoryKind::fd) return node.exchange_fd(shared.fd);
  return std::vector<UniqueFd>(static_cast<std::size_t>(node.size()));
}

// Addresses cost nothing, so a heap that grows has some for all memory of its GPU.
DeviceSegmentSizes sizes_of(DeviceHeapRequest const& request, std::size_t control) {
  std::size_t const bytes = control + request.heap_bytes;
  return {.bytes = bytes,
          .zeroed = control,
          .capacity = request.grows ? std::max(bytes, memory_of(request.device).total) : 0};
}

}  // namespace

ConnectedDeviceHeap connect_device_heap(RankGroup& job, std::shared_ptr<Node> const& members,
                                        DeviceHeapRequest const& request) {
  Node& node = *members;
  int const device = request.device;
  std::size_t const control = device_control_layout(request.sizes).bytes;
  auto const kind = choose_gpu_memory(node, [&](GpuMemoryKind tried) { return try_gpu_memory(tried, device); });
  std::shared_ptr<DeviceSegment> own;
  std::unique_ptr<GrowthLinks> growth;
  DeviceIntroduction mine;
  agree(job, refusal_of([&] {
          growth = std::make_unique<GrowthLinks>();
          own = DeviceSegment::create(kind, device, sizes_of(request, control));
          mine = introduction_of(*own, device, growth->address());
        }));
  auto const all = gather(node, "introduction", mine);
  auto const descriptors = exchange_descriptors(node, *own);
  ConnectedDeviceHeap connected{.heap = nullptr, .ranks_per_gpu = 0};
  std::vector<std::shared_ptr<Segment>> segments;
  GrowthLinks::Terms terms{.rank = node.rank(), .own = own, .timeout = request.timeout};
  auto const refusal = refusal_of([&] {
    SegmentMapper const mapper(request, kind, control);
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      // Nothing is written to the segment of a rank that is absent, which has none.
      bool const absent = node.is_absent(static_cast<int>(rank));
      auto const segment = absent ? own : mapper.map(rank, all[rank], descriptors[rank].get());
      segments.push_back(segment);
      // An attached one is another process's.
      if (!absent && segment->id() == 0)
        terms.peers.push_back({.rank = static_cast<int>(rank), .address = all[rank].growth, .segment = segment});
      if (!absent && all[rank].gpu == mine.gpu) ++connected.ranks_per_gpu;
    }
  });
  terms.is_gone = [weak = std::weak_ptr(members)](int rank) {
    // Tensors keep the heap, and must not keep the links by which peers see that this rank has left.
    auto const links = weak.lock();
    return links != nullptr && links->is_lost(rank);
  };
  terms.spare = [device] { return spare_memory(device); };
  growth->start(std::move(terms));
  // Nobody writes into a peer's control block, or releases its own segment, before all have mapped all.
  agree(job, refusal);
  connected.heap = std::make_shared<SymmetricHeap>(
      std::move(segments), node.rank(), control,
      HeapTools{.growth = std::move(growth),
                .fence = [device](auto streams) { return make_stream_fence(device, streams); }});
  return connected;
}

}  // namespace switchyard
