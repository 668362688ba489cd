// Checks calls of the CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string_view>

#include "base/check.hpp"

namespace switchyard {

inline void check_cuda(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
  if (error == cudaErrorMemoryAllocation) throw OutOfMemory(fmt::format("{}: {}", what, cudaGetErrorString(error)));
  throw SystemError(fmt::format("{}: {}", what, cudaGetErrorString(error)));
}

// Streams of callers arrive as integers, so that public headers need no CUDA.
inline cudaStream_t stream_of(std::uintptr_t value) {
  return reinterpret_cast<cudaStream_t>(value);  // NOLINT(performance-no-int-to-ptr)
}

// Makes a device the calling thread's current one for as long as the object lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check_cuda(cudaSetDevice(device), "cudaSetDevice");
    changed_ = device != before_;
  }
  ~CurrentDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  CurrentDevice(CurrentDevice const&) = delete;
  CurrentDevice& operator=(CurrentDevice const&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// While a stream of any thread is being captured, the driver refuses calls that could harm the capture. What is
// asked about streams and events of the caller's or ours harms none, and is allowed while this object lives.
class HarmlessToCaptures {
 public:
  HarmlessToCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~HarmlessToCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  HarmlessToCaptures(HarmlessToCaptures const&) = delete;
  HarmlessToCaptures& operator=(HarmlessToCaptures const&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// Is work on the stream part of a CUDA graph that is being captured?
inline bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  check_cuda(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace switchyard
