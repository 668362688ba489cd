#include <cuda.h>

#include "memory/device/cuda_check.hpp"

namespace switchyard {

namespace {

// The driver's call of that name, or null.
template <typename Function>
Function* driver_call(char const* name) noexcept {
  constexpr unsigned version = 12000;
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  cudaError_t const error = cudaGetDriverEntryPointByVersion(name, &entry, version, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<Function*>(entry);
}

bool has_context() noexcept {
  static auto* const get = driver_call<decltype(cuCtxGetCurrent)>("cuCtxGetCurrent");
  CUcontext context = nullptr;
  return get == nullptr || get(&context) != CUDA_SUCCESS || context != nullptr;
}

void unbind_context() noexcept {
  static auto* const set = driver_call<decltype(cuCtxSetCurrent)>("cuCtxSetCurrent");
  if (set != nullptr) set(nullptr);
}

}  // namespace

CurrentDevice::CurrentDevice(int device) {
  check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
  if (device == before_) return;
  bound_ = has_context();
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
  changed_ = true;
}

// Going back to GPU 0 in a thread that never worked on it would make a context there, of hundreds of megabytes.
CurrentDevice::~CurrentDevice() {
  if (!changed_) return;
  if (bound_) {
    cudaSetDevice(before_);
  } else {
    unbind_context();
  }
}

}  // namespace switchyard
