// What stands behind a Buffer; each engine has its own.
#pragma once

#include <initializer_list>
#include <memory>

#include "memory/block_allocator.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::detail {

class BufferState : public std::enable_shared_from_this<BufferState> {
 public:
  BufferState() = default;
  virtual ~BufferState() = default;
  BufferState(BufferState const&) = delete;
  BufferState& operator=(BufferState const&) = delete;

  virtual Layout get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream) = 0;
  virtual Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream) = 0;
  virtual Dispatched dispatch(DispatchArgs const& args) = 0;
  virtual Pending<Dispatched> dispatch_async(DispatchArgs const& args) = 0;
  virtual Combined combine(CombineArgs const& args) = 0;
  virtual Pending<Combined> combine_async(CombineArgs const& args) = 0;
  virtual Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) = 0;
  virtual void synchronize() = 0;
  // Collective.
  virtual void reset() = 0;
  // Waits for queued work; before the caller's last Buffer goes.
  virtual void drain() noexcept = 0;

  // For benchmarks, on the CUDA engine: all ranks' later work starts together.
  virtual void gate() {}
  [[nodiscard]] virtual std::vector<PhaseTime> phases() const { return {}; }

  virtual Stream& stream() = 0;
  [[nodiscard]] virtual std::uintptr_t cuda_stream() const noexcept = 0;
  [[nodiscard]] virtual EngineKind engine() const noexcept = 0;
  [[nodiscard]] virtual Communicator const& communicator() const noexcept = 0;
  [[nodiscard]] virtual BufferOptions const& options() const noexcept = 0;
  [[nodiscard]] virtual BlockAllocator const& allocator() const noexcept = 0;
};

// Collective.
std::shared_ptr<BufferState> make_cpu_buffer(Communicator const& communicator, BufferOptions const& options);
// Throws Unsupported in a build without CUDA.
std::shared_ptr<BufferState> make_cuda_buffer(Communicator const& communicator, BufferOptions const& options);
// Why there can be no CUDA buffer here; empty when there can.
std::string why_no_cuda();

}  // namespace switchyard::detail
