#include "engine/cuda/host/device_event.hpp"

#include <thread>

#include "base/deadline.hpp"

namespace switchyard::cuda {

DeviceStream::DeviceStream(int device) {
  CurrentDevice const current(device);
  int least = 0;
  int greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "the communication stream");
}

DeviceStream::~DeviceStream() {
  cudaStreamDestroy(stream_);
}

DeviceEvent::DeviceEvent(int device) {
  CurrentDevice const current(device);
  check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
}

DeviceEvent::~DeviceEvent() {
  cudaEventDestroy(event_);
}

std::uint64_t capture_of(cudaStream_t stream) {
  if (!is_capturing(stream)) return 0;
  cudaStreamCaptureStatus status{};
  unsigned long long id = 0;
  check_cuda(cudaStreamGetCaptureInfo(stream, &status, &id), "cudaStreamGetCaptureInfo");
  return id;
}

StreamPoint::StreamPoint(int device, cudaStream_t stream, std::function<void()> check)
    : event_(device), check_(std::move(check)), captured_(is_capturing(stream)) {
  event_.record(stream);
}

void StreamPoint::wait() const {
  // Kernels end by their own deadlines. This deadline is for the caller's work before them.
  if (!wait_for(longest_timeout)) throw Timeout("a CUDA event did not complete in time");
}

void StreamPoint::wait_quietly() const {
  if (!completes(longest_timeout)) throw Timeout("a CUDA event did not complete in time");
}

bool StreamPoint::completes(std::chrono::milliseconds timeout) const {
  Deadline const deadline(timeout);
  while (!done()) {
    if (deadline.expired()) return false;
    std::this_thread::yield();
  }
  return true;
}

bool StreamPoint::wait_for(std::chrono::milliseconds timeout) const {
  if (!completes(timeout)) return false;
  check_();
  return true;
}

}  // namespace switchyard::cuda
