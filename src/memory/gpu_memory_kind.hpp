// The ways to make GPU memory that other processes can map.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace switchyard {

enum class GpuMemoryKind : std::uint8_t {
  fd,      // cuMemCreate, handed over as a file descriptor
  fabric,  // cuMemCreate, handed over as a fabric handle
  ipc      // cudaMalloc, handed over as a handle of CUDA IPC
};

// In the order of preference. Descriptors come first: only a process that was handed one over a Unix socket can map
// the memory, and it lives until the last rank unmaps it. Fabric handles live as long, but they are bytes that
// anyone who learns them may use, and they need a service (IMEX) on the machine; what they are for, NVLink between
// nodes, is not built yet. CUDA IPC is last because the memory goes with its owner, whoever still maps it.
inline constexpr std::array gpu_memory_kinds{GpuMemoryKind::fd, GpuMemoryKind::fabric, GpuMemoryKind::ipc};

// The name of a kind in SWITCHYARD_GPU_MEMORY.
constexpr std::string_view name_of(GpuMemoryKind kind) {
  switch (kind) {
    case GpuMemoryKind::fd: return "fd";
    case GpuMemoryKind::fabric: return "fabric";
    case GpuMemoryKind::ipc: return "ipc";
  }
  return "unknown";
}

}  // namespace switchyard
