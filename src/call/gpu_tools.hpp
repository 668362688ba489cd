// What the library's own functions and programs on top of it (the benchmark, info) need of GPUs besides a buffer.
// An engine that runs on GPUs implements it; a build without one has none (api/engine_table.hpp).
//
// `cuda_stream` is a cudaStream_t everywhere; 0 is the default stream. Functions throw SystemError with the
// driver's reason, and OutOfMemory. They concern the calling thread's current GPU unless they say which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "memory/gpu_memory_kind.hpp"

namespace switchyard {

// A stream of its own. Work that is queued on it must have ended before it goes.
class GpuStream {
 public:
  virtual ~GpuStream() = default;
  [[nodiscard]] virtual std::uintptr_t handle() const noexcept = 0;
  // Waits for what has been queued.
  virtual void wait() const = 0;
};

// The time between two points of a stream.
class GpuTimer {
 public:
  virtual ~GpuTimer() = default;
  virtual void begin(std::uintptr_t cuda_stream) = 0;
  virtual void end(std::uintptr_t cuda_stream) = 0;
  // Waits for the end.
  [[nodiscard]] virtual double microseconds() const = 0;
};

// Work that was captured, to be replayed on the stream it was captured from.
class GpuGraph {
 public:
  virtual ~GpuGraph() = default;
  virtual void replay() const = 0;
};

// Moments by the GPU's clock that kernels on a stream write down. Unlike a timer they work within graphs.
class GpuStamps {
 public:
  virtual ~GpuStamps() = default;
  // Queues the writing of a moment.
  virtual void write(int which, std::uintptr_t cuda_stream) const = 0;
  // Between two moments whose writing has ended.
  [[nodiscard]] virtual double microseconds(int from, int to) const = 0;
};

class GpuTools {
 public:
  virtual ~GpuTools() = default;

  // -1 where there is none that can be used.
  [[nodiscard]] virtual int current_gpu() const noexcept = 0;
  // Makes one of the machine's GPUs the calling thread's current one; ranks take them in turn. Does nothing where
  // none can be used.
  virtual void use_gpu_of(int rank) const = 0;
  // Waits for what has been queued on a stream of that GPU.
  virtual void wait_for_stream(int device, std::uintptr_t cuda_stream) const = 0;
  // Whether what is queued on a stream of that GPU becomes part of a graph.
  [[nodiscard]] virtual bool is_captured(int device, std::uintptr_t cuda_stream) const = 0;
  // Why the GPU cannot have memory of that kind; empty: it can.
  [[nodiscard]] virtual std::string why_no_memory(GpuMemoryKind kind) const = 0;

  // Memory outside of any heap.
  [[nodiscard]] virtual std::shared_ptr<void> allocate(std::size_t bytes) const = 0;
  // Copies between host and GPU, either way; returns when the copy is complete.
  virtual void copy(void* to, void const* from, std::size_t bytes) const = 0;
  virtual void fill(void* to, unsigned char value, std::size_t bytes) const = 0;
  // Queues a copy within the GPU.
  virtual void copy_async(void* to, void const* from, std::size_t bytes, std::uintptr_t cuda_stream) const = 0;

  [[nodiscard]] virtual std::unique_ptr<GpuStream> make_stream() const = 0;
  [[nodiscard]] virtual std::unique_ptr<GpuTimer> make_timer() const = 0;
  // Captures what `work` queues on the stream.
  [[nodiscard]] virtual std::unique_ptr<GpuGraph> capture(GpuStream const& stream,
                                                          std::function<void()> const& work) const = 0;
  [[nodiscard]] virtual std::unique_ptr<GpuStamps> make_stamps(int count) const = 0;
};

// The tools of NVIDIA GPUs, and why no GPU of this machine can be used (empty: one can). Only in a build with CUDA.
GpuTools const& cuda_tools() noexcept;
std::string why_no_cuda();

}  // namespace switchyard
