// Tensors of a benchmark where its engine wants them.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "switchyard/buffer.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::cli {

std::size_t bytes_of(ConstTensorView const& view);

class TensorMemory {
 public:
  explicit TensorMemory(bool on_gpu) : on_gpu_(on_gpu) {}

  [[nodiscard]] bool on_gpu() const noexcept { return on_gpu_; }
  // A host tensor (contiguous) as the engine can read it; host memory must live on.
  ConstTensorView place(ConstTensorView host);
  // A tensor of unknown contents; pages of the host's are taken when they are written.
  [[nodiscard]] Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) const;
  void copy(void* to, void const* from, std::size_t bytes) const;
  void fill(void* to, unsigned char value, std::size_t bytes) const;
  // The same on the host.
  [[nodiscard]] Tensor fetch(Tensor const& tensor) const;
  void poison(Tensor const& tensor) const;

 private:
  bool on_gpu_;
  std::vector<std::shared_ptr<void>> placed_;
};

// Makes the GPU that a rank is to use the current one, if its engine may turn out to be that of GPUs.
void take_gpu(EngineKind engine, int local_rank);

}  // namespace switchyard::cli
