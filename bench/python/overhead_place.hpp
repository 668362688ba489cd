// The memory of overhead.cpp's inputs: the host's, or that of a GPU if the program is built with CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <vector>

#if SWITCHYARD_HAS_CUDA
#include <cuda_runtime_api.h>
#endif

#include "switchyard/switchyard.hpp"

namespace overhead {

#if SWITCHYARD_HAS_CUDA
inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}
#endif

class Place {
 public:
  explicit Place(switchyard::EngineKind engine) : on_gpu_(engine == switchyard::EngineKind::cuda) {
#if !SWITCHYARD_HAS_CUDA
    if (on_gpu_) throw std::runtime_error("cuda: this program was built without it");
#endif
  }

  // A copy of `values`, which lives as long as this object.
  template <typename T>
  switchyard::TensorView put(std::vector<T> const& values, switchyard::DType dtype,
                             std::initializer_list<std::int64_t> shape) {
    std::size_t const bytes = values.size() * sizeof(T);
    switchyard::TensorView view(memory(bytes), dtype, shape);
    if (on_gpu_) view.device = switchyard::Device::cuda;
    copy(view.data, values.data(), bytes);
    return view;
  }

  // After it nothing is under way: a call that is timed next finds an idle GPU, as a short one in a loop would not.
  void settle() const {
#if SWITCHYARD_HAS_CUDA
    if (on_gpu_) check(cudaDeviceSynchronize());
#endif
  }

 private:
  void* memory(std::size_t bytes) {
#if SWITCHYARD_HAS_CUDA
    if (on_gpu_) {
      void* at = nullptr;
      check(cudaMalloc(&at, bytes));
      kept_.emplace_back(at, [](void* each) { cudaFree(each); });
      return at;
    }
#endif
    auto const block = std::make_shared<std::vector<std::max_align_t>>(bytes / sizeof(std::max_align_t) + 1);
    kept_.emplace_back(block, block->data());
    return block->data();
  }

  void copy(void* to, void const* from, std::size_t bytes) const {
#if SWITCHYARD_HAS_CUDA
    if (on_gpu_) return check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
#endif
    std::memcpy(to, from, bytes);
  }

  bool on_gpu_;
  std::vector<std::shared_ptr<void>> kept_;
};

}  // namespace overhead
