#include "memory/device/stream_fence.hpp"

#include <algorithm>
#include <vector>

#include "memory/device/cuda_check.hpp"

namespace switchyard {

namespace {

class Events final : public StreamFence {
 public:
  Events() = default;
  ~Events() override {
    for (cudaEvent_t const event : events_) cudaEventDestroy(event);
  }
  Events(Events const&) = delete;
  Events& operator=(Events const&) = delete;

  void record(cudaStream_t stream) {
    if (is_capturing(stream)) return;
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    events_.push_back(event);
    check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
  }

  // After an error of the GPU nothing runs any more.
  [[nodiscard]] bool passed() const noexcept override {
    HarmlessToCaptures const harmless;
    return std::ranges::none_of(events_,
                                [](cudaEvent_t event) { return cudaEventQuery(event) == cudaErrorNotReady; });
  }

  void make_stream_wait(std::uintptr_t stream) const override {
    for (cudaEvent_t const event : events_)
      check_cuda(cudaStreamWaitEvent(stream_of(stream), event, 0), "cudaStreamWaitEvent");
  }

  void wait() const noexcept override {
    HarmlessToCaptures const harmless;
    for (cudaEvent_t const event : events_) cudaEventSynchronize(event);
  }

 private:
  std::vector<cudaEvent_t> events_;
};

}  // namespace

std::unique_ptr<StreamFence> make_stream_fence(int device, std::span<std::uintptr_t const> streams) {
  CurrentDevice const current(device);
  auto fence = std::make_unique<Events>();
  for (std::uintptr_t const stream : streams) fence->record(stream_of(stream));
  return fence;
}

}  // namespace switchyard
