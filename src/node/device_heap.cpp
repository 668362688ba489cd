#include "node/device_heap.hpp"

#include <type_traits>
#include <vector>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "memory/device/device_segment.hpp"
#include "memory/device/peer_access.hpp"
#include "node/agreement.hpp"
#include "node/gpu_memory_choice.hpp"
#include "node/host_heap.hpp"

namespace switchyard {

namespace {

// What every rank of the node needs to map a segment, besides its descriptor.
struct DeviceIntroduction {
  std::uint64_t segment_id = 0;
  std::uint64_t segment_bytes = 0;
  std::uint64_t kind = 0;
  GpuMemoryHandle handle{};
  GpuId gpu{};
};
static_assert(std::has_unique_object_representations_v<DeviceIntroduction>);  // its bytes are sent as they lie

DeviceIntroduction introduction_of(DeviceSegment const& segment, int device) {
  SharedGpuMemory const shared = segment.shared();
  return {.segment_id = segment.id(),
          .segment_bytes = shared.bytes,
          .kind = static_cast<std::uint64_t>(shared.kind),
          .handle = shared.handle,
          .gpu = gpu_id(device)};
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
      return DeviceSegment::attach(device_,
                                   {.kind = kind_, .bytes = peer.segment_bytes, .fd = fd, .handle = peer.handle});
    require(segment->bytes() == peer.segment_bytes, "size: expected {} bytes, seen {}", segment->bytes(),
            peer.segment_bytes);
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

}  // namespace

ConnectedDeviceHeap connect_device_heap(Job& job, DeviceHeapRequest const& request) {
  Node& node = *job.node();
  int const device = request.device;
  std::size_t const control = device_control_layout(request.sizes).bytes;
  auto const kind = choose_gpu_memory(node, [&](GpuMemoryKind tried) { return try_gpu_memory(tried, device); });
  std::shared_ptr<DeviceSegment> own;
  DeviceIntroduction mine;
  agree(job, refusal_of([&] {
          own = DeviceSegment::create(kind, device, control + request.heap_bytes, control);
          mine = introduction_of(*own, device);
        }));
  auto const all = gather(node, "introduction", mine);
  auto const descriptors = exchange_descriptors(node, *own);
  ConnectedDeviceHeap connected{.heap = nullptr, .ranks_per_gpu = 0};
  std::vector<std::shared_ptr<Segment>> segments;
  auto const refusal = refusal_of([&] {
    SegmentMapper const mapper(request, kind, control);
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      // Nothing is written to the segment of a rank that is absent, which has none.
      bool const absent = job.is_absent(static_cast<int>(rank));
      segments.push_back(absent ? own : mapper.map(rank, all[rank], descriptors[rank].get()));
      if (!absent && all[rank].gpu == mine.gpu) ++connected.ranks_per_gpu;
    }
  });
  // Nobody writes into a peer's control block, or releases its own segment, before all have mapped all.
  agree(job, refusal);
  connected.heap = std::make_shared<SymmetricHeap>(std::move(segments), node.rank(), control);
  return connected;
}

}  // namespace switchyard
