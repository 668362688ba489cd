// The calls that a latency benchmark times, with what they take and give.
#pragma once

#include <memory>
#include <vector>

#include "call/gpu_tools.hpp"
#include "cli/bench/case.hpp"
#include "cli/bench/inputs.hpp"
#include "cli/bench/memory.hpp"
#include "cli/bench/samples.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::cli {

class LatencyCalls {
 public:
  // Collective.
  LatencyCalls(Case const& of, Communicator const& communicator);

  [[nodiscard]] LowLatencyBuffer& buffer() noexcept { return buffer_; }
  [[nodiscard]] EngineKind engine() const { return buffer_.engine(); }
  [[nodiscard]] TensorMemory const& memory() const noexcept { return memory_; }
  [[nodiscard]] bool on_gpu() const noexcept { return memory_.on_gpu(); }
  [[nodiscard]] GpuStream const& stream() const { return *stream_; }

  // The next calls take this input set.
  void select(int set) { current_ = sets_[static_cast<std::size_t>(set)]; }
  // The next calls take tensors that stay where they are, for a graph; the set is copied into them (CUDA engine).
  void stage(int set);
  // A combine and the halves go on from the dispatch before.
  void run(Part part);
  // For what was queued; throws what it found.
  void wait() { buffer_.synchronize(); }
  // Later calls add up how long each rank was waited for.
  void count_waits();
  // [R], of dispatches or combines.
  [[nodiscard]] std::vector<double> waited_us(Part part) const;
  // Releases the result.
  void release();

  [[nodiscard]] LowLatencyReceived const& received() const noexcept { return received_; }
  // Where the experts write for the result.
  [[nodiscard]] Tensor outputs();
  [[nodiscard]] Tensor const& out() const noexcept { return out_; }

 private:
  [[nodiscard]] std::uintptr_t handle() const { return stream_ ? stream_->handle() : 0; }
  [[nodiscard]] LowLatencyDispatchArgs dispatch_args() const;
  [[nodiscard]] LowLatencyCombineArgs combine_args();

  Case const& case_;
  LowLatencyBuffer buffer_;
  TensorMemory memory_;
  std::unique_ptr<GpuStream> stream_;
  std::vector<BenchInputs> host_inputs_;
  std::vector<DispatchArgs> sets_;  // of which this mode takes the tensors
  DispatchArgs current_;
  DispatchArgs staged_;
  std::vector<Tensor> staged_tensors_;
  Tensor other_outputs_;  // not zero-copy
  Tensor out_;
  Tensor dispatch_wait_ns_;  // not given: nobody counts
  Tensor combine_wait_ns_;
  LowLatencyReceived received_;
  ReceiveHook receive_;
};

}  // namespace switchyard::cli
