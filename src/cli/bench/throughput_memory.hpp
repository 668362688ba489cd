// Tensors of a benchmark where its buffer wants them, and clocks that suit.
#pragma once

#include <memory>

#include "call/gpu_tools.hpp"
#include "cli/bench/memory.hpp"
#include "switchyard/buffer.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cli {

class BenchMemory : public TensorMemory {
 public:
  explicit BenchMemory(Buffer& buffer);

  using TensorMemory::fetch;
  [[nodiscard]] Dispatched fetch(Dispatched const& routed) const;

  // GPU time of a call of the buffer, from the moment when all ranks are released to that when this rank knows that
  // its call is complete, both by the GPU's clock: events before and after would add their own time.
  template <typename Work>
  double call_us(Work&& work) {
    gate(buffer_);
    work();
    buffer_.synchronize();
    double us = 0;
    for (PhaseTime const& phase : phases(buffer_)) us += phase.us;
    return us;
  }
  // GPU time of anything else that `work` queues on the buffer's stream, measured in the same way.
  template <typename Work>
  double gpu_us(Work&& work) {
    gate(buffer_);
    timer_->begin(buffer_.cuda_stream());
    work();
    timer_->end(buffer_.cuda_stream());
    return timer_->microseconds();
  }
  // Copies `copy_bytes` inside the GPU.
  void copy_on_gpu();

 private:
  Buffer& buffer_;
  std::unique_ptr<GpuTimer> timer_;
  std::shared_ptr<void> copies_;
};

}  // namespace switchyard::cli
