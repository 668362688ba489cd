// Which GPU is whose, and which can reach which.
#pragma once

#include <array>
#include <string>
#include <vector>

namespace switchyard {

// The driver's UUID of a GPU. It is the same in every process, unlike ordinals (CUDA_VISIBLE_DEVICES).
using GpuId = std::array<unsigned char, 16>;

GpuId gpu_id(int device);
// The id as nvidia-smi prints it.
std::string text_of(GpuId const& id);

// The GPUs that this process sees, by ordinal.
std::vector<GpuId> visible_gpus();

// False when the driver says that `device` cannot reach the memory of GPU `peer`. About a GPU that this process
// does not see the driver cannot be asked; mapping its memory will succeed or fail.
bool may_reach(std::vector<GpuId> const& visible, int device, GpuId const& peer);
// The same about atomic additions to that memory: NVLink has them, PCIe does not.
bool may_add(std::vector<GpuId> const& visible, int device, GpuId const& peer);

}  // namespace switchyard
