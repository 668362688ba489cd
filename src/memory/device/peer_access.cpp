#include "memory/device/peer_access.hpp"

#include <algorithm>
#include <cstring>

#include "memory/device/cuda_check.hpp"

namespace switchyard {

GpuId gpu_id(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "properties of the GPU");
  GpuId id{};
  static_assert(sizeof properties.uuid.bytes == sizeof id);
  std::memcpy(id.data(), properties.uuid.bytes, id.size());
  return id;
}

std::string text_of(GpuId const& id) {
  std::string text = "GPU-";
  for (std::size_t i = 0; i < id.size(); ++i) {
    bool const dash = i == 4 || i == 6 || i == 8 || i == 10;
    text += fmt::format("{}{:02x}", dash ? "-" : "", id[i]);
  }
  return text;
}

std::vector<GpuId> visible_gpus() {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  std::vector<GpuId> ids;
  for (int device = 0; device < count; ++device) ids.push_back(gpu_id(device));
  return ids;
}

namespace {

// Asks about a pair of GPUs by their ordinals. True when they are one GPU, or the peer's is not visible.
template <typename Ask>
bool ask_of_peer(std::vector<GpuId> const& visible, int device, GpuId const& peer, Ask const& ask) {
  auto const found = std::find(visible.begin(), visible.end(), peer);
  int const ordinal = static_cast<int>(found - visible.begin());
  return found == visible.end() || ordinal == device || ask(ordinal);
}

}  // namespace

bool may_reach(std::vector<GpuId> const& visible, int device, GpuId const& peer) {
  return ask_of_peer(visible, device, peer, [device](int ordinal) {
    int can = 0;
    check_cuda(cudaDeviceCanAccessPeer(&can, device, ordinal), "cudaDeviceCanAccessPeer");
    return can != 0;
  });
}

bool may_add(std::vector<GpuId> const& visible, int device, GpuId const& peer) {
  return ask_of_peer(visible, device, peer, [device](int ordinal) {
    int can = 0;
    check_cuda(cudaDeviceGetP2PAttribute(&can, cudaDevP2PAttrNativeAtomicSupported, device, ordinal),
               "cudaDeviceGetP2PAttribute");
    return can != 0;
  });
}

}  // namespace switchyard
