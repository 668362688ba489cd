// The CUDA engine for the tests of the low-latency mode, which are those of the CPU engine.
#pragma once

#include <map>
#include <mutex>

#include "gpu/throughput/gpu_flow.hpp"
#include "support/low_latency_engine.hpp"

namespace switchyard::test {

// An arena whose memory is used again, because cudaMalloc and cudaFree may wait for kernels of ranks in this
// process.
class ReusedArena {
 public:
  explicit ReusedArena(std::size_t bytes) : arena_(bytes) {}
  void* take(std::size_t bytes) {
    std::lock_guard const lock(mutex_);
    std::vector<void*>& free = free_[bytes];
    if (free.empty()) return arena_.take(bytes);
    void* const block = free.back();
    free.pop_back();
    return block;
  }
  void give_back(void* block, std::size_t bytes) {
    std::lock_guard const lock(mutex_);
    free_[bytes].push_back(block);
  }

 private:
  Arena arena_;
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
};

class GpuRankMemory : public RankMemory {
 public:
  explicit GpuRankMemory(int rank) : device_(rank), arena_(std::make_shared<ReusedArena>(arena_bytes)) {}

  Tensor place(ConstTensorView const& host) override {
    if (!host.given()) return {};
    std::size_t const bytes = rounded(span_bytes(host));
    TensorView view;
    view.data = arena_->take(bytes);
    view.dtype = host.dtype;
    view.device = Device::cuda;
    view.ndim = host.ndim;
    view.shape = host.shape;
    view.strides = host.strides;
    std::shared_ptr<void> const owner(view.data,
                                      [arena = arena_, bytes](void* at) { arena->give_back(at, bytes); });
    write(view, host.data);
    return {view, owner};
  }
  void write(TensorView const& to, void const* from) override { device_.write_span(to, from); }
  Tensor fetch(Tensor const& tensor) override { return device_.download(tensor); }
  [[nodiscard]] std::uintptr_t stream() const override { return device_.stream(); }

 private:
  static constexpr std::size_t arena_bytes = std::size_t{256} << 20U;
  // Rounds up to sizes that recur, so that blocks are used again.
  static std::size_t rounded(std::size_t bytes) {
    std::size_t size = 256;
    while (size < bytes) size *= 2;
    return size;
  }

  DeviceRank device_;
  std::shared_ptr<ReusedArena> arena_;
};

class GpuSlotEngine : public SlotEngine {
 public:
  [[nodiscard]] EngineKind kind() const override { return EngineKind::cuda; }
  [[nodiscard]] std::string unusable() const override {
    return gpu_usable() ? std::string{} : "no GPU that this build can use";
  }
  [[nodiscard]] std::unique_ptr<RankMemory> memory(int rank) const override {
    return std::make_unique<GpuRankMemory>(rank);
  }
};

// Ranks are threads. Every rank has streams of its own, which must not share a queue.
class GpuThreadsEngine : public GpuSlotEngine {
 public:
  [[nodiscard]] std::string unusable() const override {
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    return GpuSlotEngine::unusable();
  }
};

}  // namespace switchyard::test
