#include "api/device_segments.hpp"

#include <array>
#include <cstring>
#include <vector>

#include "api/segments.hpp"
#include "base/check.hpp"
#include "base/refusal.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/device_segment.hpp"

namespace switchyard {

namespace {

// What every rank tells the others of its segment.
struct DeviceIntroduction {
  std::uint64_t segment_id = 0;
  std::uint64_t segment_bytes = 0;
  std::array<char, 16> gpu{};
};

std::array<char, 16> gpu_id(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "properties of the GPU");
  std::array<char, 16> id{};
  std::memcpy(id.data(), properties.uuid.bytes, id.size());
  return id;
}

std::vector<DeviceIntroduction> introduce(World& world, DeviceIntroduction const& mine) {
  std::vector<DeviceIntroduction> all;
  for (auto const& bytes : world.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    require(bytes.size() == sizeof mine, "rank {}: introduction: expected {} bytes, seen {}", all.size(),
            sizeof mine, bytes.size());
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof mine);
  }
  return all;
}

// Ranks that are threads of this process share one mapping.
std::shared_ptr<DeviceSegment> map_segment(DeviceIntroduction const& peer, UniqueFd const& fd, int device) {
  if (auto segment = DeviceSegment::find_in_process(peer.segment_id, device)) return segment;
  return DeviceSegment::attach(device, fd, peer.segment_bytes);
}

}  // namespace

ConnectedDeviceHeap connect_device_heap(World& world, DeviceHeapRequest const& request) {
  std::size_t const control = device_control_layout(request.sizes).bytes;
  std::shared_ptr<DeviceSegment> own;
  DeviceIntroduction mine;
  agree(world, refusal_of([&] {
          own = DeviceSegment::create(request.device, control + request.heap_bytes, control);
          mine = {.segment_id = own->id(), .segment_bytes = own->bytes(), .gpu = gpu_id(request.device)};
        }));
  auto const all = introduce(world, mine);
  auto const descriptors = world.exchange_fd(own->fd());
  ConnectedDeviceHeap connected{.heap = nullptr, .ranks_per_gpu = 0};
  std::vector<std::shared_ptr<Segment>> segments;
  auto const refusal = refusal_of([&] {
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      segments.push_back(map_segment(all[rank], descriptors[rank], request.device));
      require(segments.back()->bytes() > control, "segment of rank {}: expected more than {} bytes, seen {}", rank,
              control, segments.back()->bytes());
      if (all[rank].gpu == mine.gpu) ++connected.ranks_per_gpu;
    }
  });
  // Nobody writes into a peer's control block, or lets go of its own segment, before all have mapped all.
  agree(world, refusal);
  connected.heap = std::make_shared<SymmetricHeap>(std::move(segments), world.rank(), control);
  return connected;
}

}  // namespace switchyard
