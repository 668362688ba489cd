// CUDA streams and events that have an owner.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "control/event_state.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

class DeviceStream {
 public:
  // The stream has the highest priority, because what peers wait for should not queue behind compute.
  explicit DeviceStream(int device);
  ~DeviceStream();
  DeviceStream(DeviceStream const&) = delete;
  DeviceStream& operator=(DeviceStream const&) = delete;
  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Which capture it is; 0: none.
std::uint64_t capture_of(cudaStream_t stream);

class DeviceEvent {
 public:
  explicit DeviceEvent(int device);
  ~DeviceEvent();
  DeviceEvent(DeviceEvent const&) = delete;
  DeviceEvent& operator=(DeviceEvent const&) = delete;
  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  // What is queued on `stream` from here on starts after this event.
  void make_stream_wait(cudaStream_t stream) const {
    check_cuda(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }
  // This wait has no deadline: kernels end by their own, and the caller's work before them may take any time.
  void wait() const { check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  void wait_quietly() const noexcept { cudaEventSynchronize(event_); }
  [[nodiscard]] bool done() const noexcept {
    HarmlessToCaptures const harmless;
    return cudaEventQuery(event_) != cudaErrorNotReady;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// A point in the engine's stream, for callers. `check` throws what the kernels before it have reported. A point
// that is recorded in a capture belongs to the graph: only streams can wait for it, and to the host it is done.
class StreamPoint final : public detail::EventState {
 public:
  StreamPoint(int device, cudaStream_t stream, std::function<void()> check);
  [[nodiscard]] bool done() const override { return captured_ || event_.done(); }
  void wait() const override;
  void wait_quietly() const override;
  bool wait_for(std::chrono::milliseconds timeout) const override;
  void wait_on(std::uintptr_t cuda_stream) const override { event_.make_stream_wait(stream_of(cuda_stream)); }

 private:
  [[nodiscard]] bool completes(std::chrono::milliseconds timeout) const;

  DeviceEvent event_;
  std::function<void()> check_;
  bool captured_;
};

}  // namespace switchyard::cuda
