// CUDA events and streams with an owner.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "control/event_state.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

class DeviceStream {
 public:
  // Of high priority: what others wait for should not queue behind compute.
  explicit DeviceStream(int device);
  ~DeviceStream();
  DeviceStream(DeviceStream const&) = delete;
  DeviceStream& operator=(DeviceStream const&) = delete;
  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// While a stream of any thread is being captured the driver refuses what could harm a capture. What the engine asks
// of its own streams and events does not.
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
bool is_capturing(cudaStream_t stream);

class DeviceEvent {
 public:
  explicit DeviceEvent(int device);
  ~DeviceEvent();
  DeviceEvent(DeviceEvent const&) = delete;
  DeviceEvent& operator=(DeviceEvent const&) = delete;
  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  // What is queued later on `stream` starts after this event.
  void hold(cudaStream_t stream) const {
    check_cuda(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }
  // An event that cannot be recorded stays what it was.
  void record_quietly(cudaStream_t stream) noexcept {
    if (cudaEventRecord(event_, stream) != cudaSuccess) static_cast<void>(cudaGetLastError());
  }
  // Kernels end by their own deadlines; work of the caller's before them may take as long as it likes.
  void wait() const { check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  void wait_quietly() const noexcept { cudaEventSynchronize(event_); }
  [[nodiscard]] bool done() const noexcept {
    HarmlessToCaptures const harmless;
    return cudaEventQuery(event_) != cudaErrorNotReady;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// A point in the engine's stream, for callers. `check` throws what the kernels before it have reported. In a
// capture it is a point of the graph, which only streams can wait for: to the host it is done.
class StreamPoint final : public detail::EventState {
 public:
  StreamPoint(int device, cudaStream_t stream, std::function<void()> check);
  [[nodiscard]] bool done() const override { return captured_ || event_.done(); }
  void wait() const override;
  void wait_quietly() const override;
  bool wait_for(std::chrono::milliseconds timeout) const override;
  void wait_on(std::uintptr_t cuda_stream) const override { event_.hold(stream_of(cuda_stream)); }

 private:
  [[nodiscard]] bool completes(std::chrono::milliseconds timeout) const;

  DeviceEvent event_;
  std::function<void()> check_;
  bool captured_;
};

}  // namespace switchyard::cuda
