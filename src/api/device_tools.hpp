// What programs on top (the benchmark, info) need of a GPU beside a buffer. Without CUDA all throw Unsupported.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "memory/gpu_memory_kind.hpp"

namespace switchyard {

// Why the current GPU cannot have memory of that kind; empty when it can.
std::string why_no_gpu_memory(GpuMemoryKind kind);

// Makes a GPU the calling thread's current one: ranks take those of the machine in turn. Nothing without a GPU.
void use_gpu_of(int rank);

// Memory of the current GPU that is not of any heap.
std::shared_ptr<void> device_memory(std::size_t bytes);
// Between host and GPU, either way; returns when done.
void device_copy(void* to, void const* from, std::size_t bytes);
void device_fill(void* to, unsigned char value, std::size_t bytes);
// Queues a copy inside the GPU.
void device_copy_async(void* to, void const* from, std::size_t bytes, std::uintptr_t cuda_stream);

// Time between two points of a stream.
class DeviceTimer {
 public:
  DeviceTimer();
  ~DeviceTimer();  // NOLINT(performance-trivially-destructible): not in a build with CUDA
  DeviceTimer(DeviceTimer const&) = delete;
  DeviceTimer& operator=(DeviceTimer const&) = delete;
  void begin(std::uintptr_t cuda_stream);
  void end(std::uintptr_t cuda_stream);
  // Waits for the end.
  [[nodiscard]] double microseconds() const;

 private:
  void* begin_ = nullptr;
  void* end_ = nullptr;
};

// A stream of the current GPU.
class DeviceStream {
 public:
  DeviceStream();
  ~DeviceStream();  // NOLINT(performance-trivially-destructible)
  DeviceStream(DeviceStream const&) = delete;
  DeviceStream& operator=(DeviceStream const&) = delete;
  [[nodiscard]] std::uintptr_t handle() const noexcept { return reinterpret_cast<std::uintptr_t>(stream_); }
  void wait() const;

 private:
  void* stream_ = nullptr;
};

// What `work` queues on a stream, as a CUDA graph.
class DeviceGraph {
 public:
  DeviceGraph(DeviceStream const& stream, std::function<void()> const& work);
  ~DeviceGraph();  // NOLINT(performance-trivially-destructible)
  DeviceGraph(DeviceGraph const&) = delete;
  DeviceGraph& operator=(DeviceGraph const&) = delete;
  void replay() const;

 private:
  std::uintptr_t stream_;
  void* exec_ = nullptr;
};

// Moments by the GPU's clock, which kernels on a stream write down: other than events, they work within graphs.
class DeviceStamps {
 public:
  explicit DeviceStamps(int count);
  // Queues the writing.
  void write(int which, DeviceStream const& stream) const;
  // Of what has run.
  [[nodiscard]] double microseconds(int from, int to) const;

 private:
  std::shared_ptr<std::uint64_t[]> nanoseconds_;
};

}  // namespace switchyard
