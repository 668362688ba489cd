// Dispatch and combine in low-latency mode, on GPU memory. Arguments are checked before they arrive here; see
// buffer.cpp. Kernels run on the caller's streams, and the host waits for nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "control/counters.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/host/failure_monitor.hpp"
#include "engine/cuda/low_latency/args.hpp"
#include "engine/cuda/low_latency/frame_tracker.hpp"

namespace switchyard::cuda {

class LowLatency {
 public:
  LowLatency(EngineResources resources, SlotSizes const& slots, bool mask_late);
  ~LowLatency();
  LowLatency(LowLatency const&) = delete;
  LowLatency& operator=(LowLatency const&) = delete;

  // How a part of a call runs.
  struct Run {
    int blocks = 1;
    cudaStream_t stream = nullptr;
  };
  // What all kernels of a buffer are handed. The fields of the call are to be filled in.
  [[nodiscard]] SlotArgs common() const;
  template <typename Args>
  [[nodiscard]] Args with_common() const {
    Args args{};
    static_cast<SlotArgs&>(args) = common();
    return args;
  }
  void launch(SlotDispatchArgs& args, Run const& run);
  void launch(SlotCombineArgs& args, Run const& run);
  [[nodiscard]] bool expects_replays() const noexcept { return replays_.load(std::memory_order_relaxed); }
  // Before a capture: gives back what was released, because replays will not.
  void expect_replays();

  // From here on the frame has this dispatch's result. `number` counts dispatches from 1.
  void begin(int frame, std::uint64_t number) { tracker_.begin(frame, number); }
  struct ReleasedResult {
    int frame = 0;
    std::uint64_t number = 0;
    bool captured = false;
    std::span<std::uintptr_t const> readers{};  // streams that read it, besides that of the latest call
  };
  // The result may be overwritten. The next kernel gives its frame back; if replays may come next, a kernel does so
  // at once. Any thread may call this.
  void release(ReleasedResult const& result) noexcept;

  // Both throw what kernels or peers have reported, and check_usable() also ids of earlier calls that were out of
  // range.
  void check_alive();
  void check_usable();
  void mask(int peer, bool masked);
  // Masks a peer that has no slots, before the first call.
  void leave_out(int peer);
  [[nodiscard]] std::vector<bool> masked();
  void synchronize();
  void gate(cudaStream_t stream);
  [[nodiscard]] std::byte* bay(int which) const noexcept;  // of this rank
  [[nodiscard]] SlotLayoutBytes const& layout() const noexcept { return at_; }

  // The steps of a reset; see call/reset.hpp.
  void end_work();
  [[nodiscard]] static Counters counters() noexcept { return {}; }  // all begin at 0 again
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error);
  // The last step of a reset, when the words of all ranks are clear: publishes which bay each frame has. No rank
  // calls before its end.
  void publish_bays(std::span<int const> of_frames);

 private:
  void prepare(SlotArgs& args, cudaStream_t stream);
  void remember(cudaStream_t stream, bool captured);
  void launch_release(std::uint32_t frames);
  [[nodiscard]] bool mark_readers(int frame, std::span<std::uintptr_t const> others);
  [[nodiscard]] cudaError_t synchronize_release_stream() const;
  template <typename Launch>
  void launch_or_fail(SlotArgs& args, cudaStream_t stream, Launch const& launch);
  void clear_slots();

  EngineResources resources_;
  SymmetricHeap& heap_;  // in GPU memory
  SlotSizes slots_;
  bool mask_late_;
  SlotLayoutBytes at_;
  Peers peers_{};
  FailureMonitor monitor_;
  DeviceStream release_stream_;  // for kernels that belong to no call
  // Calls run one after another, whatever streams they are on.
  DeviceEvent latest_done_;
  std::atomic<cudaStream_t> latest_stream_{nullptr};  // remember() stores it; prepare() and mark_readers() load it
  bool any_call_ = false;
  std::mutex launching_;  // held so that what is taken from the tracker is launched before anything else
  std::atomic<bool> replays_{false};  // a call was captured; expect_replays() stores it, others load it
  FrameTracker tracker_;
  DeviceEvent release_done_;  // of the latest release outside of a call
  bool released_outside_ = false;
  DeviceStream joined_;  // comes behind all readers of a result
  // Behind each of these events nothing reads its frame's released result any more.
  std::array<std::unique_ptr<DeviceEvent>, max_frames> readers_done_;
};

}  // namespace switchyard::cuda
