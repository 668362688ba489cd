// What stands behind a LowLatencyBuffer; each engine has its own.
#pragma once

#include <functional>
#include <memory>

#include "switchyard/low_latency.hpp"

namespace switchyard::detail {

// Holds the frame of one dispatch; owned by its tensors, its handle and its hooks together.
struct Lease {
  int frame = 0;
  SlotLayout layout = SlotLayout::expert_major;
  std::int64_t num_tokens = 0;      // N of the dispatch
  std::uint64_t buffer_id = 0;      // whose
  std::uint64_t era = 0;            // resets of the buffer before it
  bool received = false;            // CUDA engine: the receive half of the dispatch is queued
  bool combined = false;            // likewise, a combine
  std::function<void()> give_back;  // may be called on any thread, must not throw

  Lease() = default;
  Lease(Lease const&) = delete;
  Lease& operator=(Lease const&) = delete;
  ~Lease() {
    if (give_back) give_back();
  }
};

class LowLatencyState : public std::enable_shared_from_this<LowLatencyState> {
 public:
  LowLatencyState() = default;
  virtual ~LowLatencyState() = default;
  LowLatencyState(LowLatencyState const&) = delete;
  LowLatencyState& operator=(LowLatencyState const&) = delete;

  virtual LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args) = 0;
  virtual LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive) = 0;
  virtual void combine(LowLatencyCombineArgs const& args) = 0;
  virtual void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive) = 0;
  virtual Tensor outputs(LowLatencyHandle const& handle, DType dtype) = 0;
  virtual void mask(int rank, bool masked) = 0;
  virtual std::vector<bool> masked() = 0;
  virtual void reset() = 0;
  virtual void synchronize() = 0;
  virtual void gate(std::uintptr_t cuda_stream) = 0;
  // Waits for queued work; before the caller's last LowLatencyBuffer goes.
  virtual void drain() noexcept = 0;

  [[nodiscard]] virtual EngineKind engine() const noexcept = 0;
  [[nodiscard]] virtual Communicator const& communicator() const noexcept = 0;
  [[nodiscard]] virtual LowLatencyOptions const& options() const noexcept = 0;
  [[nodiscard]] virtual std::size_t bytes() const noexcept = 0;
};

// Collective.
std::shared_ptr<LowLatencyState> make_cpu_low_latency(Communicator const& communicator,
                                                      LowLatencyOptions const& options);
// Throws Unsupported in a build without CUDA.
std::shared_ptr<LowLatencyState> make_cuda_low_latency(Communicator const& communicator,
                                                       LowLatencyOptions const& options);

}  // namespace switchyard::detail
