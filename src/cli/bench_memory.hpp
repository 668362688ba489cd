// Tensors of a benchmark where its engine wants them, and clocks that suit.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "api/device_tools.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::cli {

class BenchMemory {
 public:
  explicit BenchMemory(Buffer& buffer);

  [[nodiscard]] bool on_gpu() const noexcept { return timer_.has_value(); }
  // A host tensor (contiguous) as the engine can read it; host memory must live on.
  ConstTensorView place(ConstTensorView host);
  void write(TensorView const& to, void const* host) const;
  // The same on the host.
  [[nodiscard]] Tensor fetch(Tensor const& tensor) const;
  [[nodiscard]] Dispatched fetch(Dispatched const& routed) const;
  void poison(Tensor const& tensor) const;

  // GPU time of a call of the buffer, from the moment when all ranks are released to that when this rank knows that
  // its call is complete, both by the GPU's clock: events before and after would add their own time.
  template <typename Work>
  double call_us(Work&& work) {
    buffer_.gate();
    work();
    buffer_.synchronize();
    double us = 0;
    for (PhaseTime const& phase : buffer_.phases()) us += phase.us;
    return us;
  }
  // GPU time of anything else that `work` queues on the buffer's stream, likewise.
  template <typename Work>
  double gpu_us(Work&& work) {
    buffer_.gate();
    timer_->begin(buffer_.cuda_stream());
    work();
    timer_->end(buffer_.cuda_stream());
    return timer_->microseconds();
  }
  // Copies `copy_bytes` inside the GPU.
  void copy_on_gpu();

 private:
  Buffer& buffer_;
  std::optional<DeviceTimer> timer_;
  std::vector<std::shared_ptr<void>> placed_;
  std::shared_ptr<void> copies_;
};

}  // namespace switchyard::cli
