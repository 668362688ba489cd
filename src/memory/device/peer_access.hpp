// Which GPU is whose, and which can reach which.
#pragma once

#include <array>
#include <string>
#include <vector>

namespace switchyard {

// The driver's UUID of a GPU: the same in every process, as ordinals are not (CUDA_VISIBLE_DEVICES).
using GpuId = std::array<unsigned char, 16>;

GpuId gpu_id(int device);
// As nvidia-smi prints it.
std::string text_of(GpuId const& id);

// The GPUs that this process sees, by ordinal.
std::vector<GpuId> visible_gpus();

// False when the driver says that `device` cannot reach the memory of GPU `peer`. A GPU that this process does not
// see cannot be asked about; mapping its memory will tell.
bool may_reach(std::vector<GpuId> const& visible, int device, GpuId const& peer);
// Likewise, of atomic additions there: NVLink has them, PCIe has not.
bool may_add(std::vector<GpuId> const& visible, int device, GpuId const& peer);

}  // namespace switchyard
