// Dispatch and combine in low-latency mode, on GPU memory. Arguments arrive checked; see src/api/. Kernels run on
// the caller's streams; the host waits for nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "control/counters.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/host/lookout.hpp"
#include "engine/cuda/low_latency/args.hpp"
#include "engine/cuda/low_latency/frame_book.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard::cuda {

struct LowLatencyEngineOptions {
  int device = 0;
  int ranks_per_gpu = 1;
  DeviceSizes control;
  SlotSizes slots;
  bool mask_late = false;
  WaitPolicy wait;
};

struct LowLatencyFoundation {
  std::shared_ptr<SymmetricHeap> device_heap;
  std::shared_ptr<SymmetricHeap> host_heap;
  std::shared_ptr<Node> node;
};

class LowLatencyEngine {
 public:
  LowLatencyEngine(LowLatencyFoundation foundation, LowLatencyEngineOptions const& options);
  ~LowLatencyEngine();
  LowLatencyEngine(LowLatencyEngine const&) = delete;
  LowLatencyEngine& operator=(LowLatencyEngine const&) = delete;

  // Which part of a call, on which stream, with how many blocks.
  struct Run {
    int blocks = 1;
    cudaStream_t stream = nullptr;
  };
  // What all kernels of a buffer are handed; the call's own fields are to be filled in.
  [[nodiscard]] SlotArgs common() const;
  template <typename Args>
  [[nodiscard]] Args with_common() const {
    Args args{};
    static_cast<SlotArgs&>(args) = common();
    return args;
  }
  void launch(SlotDispatchArgs& args, Run const& run);
  void launch(SlotCombineArgs& args, Run const& run);

  // From here on the frame has this dispatch's result; `number` counts dispatches from 1.
  void begin(int frame, std::uint64_t number) { book_.begin(frame, number); }
  // The result may be overwritten: told with the next kernel, or at once where replays may be the next. Any thread.
  struct LetGo {
    int frame = 0;
    std::uint64_t number = 0;
    bool captured = false;
  };
  void let_go(LetGo const& result) noexcept;

  // Throws what kernels or peers have reported, without and with ids of earlier calls that were out of range.
  void check_alive();
  void check_usable();
  void mask(int peer, bool masked);
  [[nodiscard]] std::vector<bool> masked();
  void synchronize();
  void gate(cudaStream_t stream);
  [[nodiscard]] std::byte* frame(int which) const noexcept;  // of this rank
  [[nodiscard]] SlotLayoutBytes const& layout() const noexcept { return at_; }

  // The steps of a reset; see api/reset.hpp.
  void end_work();
  [[nodiscard]] static Counters counters() noexcept { return {}; }  // all begin at 0 again
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error);

 private:
  void expect_replays();
  void prepare(SlotArgs& args, cudaStream_t stream);
  void follow(cudaStream_t stream);
  void remember(cudaStream_t stream, bool captured);
  void launch_release(std::uint32_t frames);
  [[nodiscard]] bool mark_readers(int frame);
  [[nodiscard]] cudaError_t synchronize_aside() const;
  template <typename Launch>
  void launch_or_fail(SlotArgs& args, cudaStream_t stream, Launch const& launch);
  void clear_slots();

  std::shared_ptr<SymmetricHeap> heap_;
  std::shared_ptr<Node> node_;
  LowLatencyEngineOptions options_;
  SlotLayoutBytes at_;
  Peers peers_{};
  Lookout lookout_;
  DeviceStream aside_;  // for what belongs to no call
  // Calls come one after another, whatever streams they are on.
  DeviceEvent latest_done_;
  std::atomic<cudaStream_t> latest_stream_{nullptr};
  bool any_call_ = false;
  std::mutex launching_;              // what is taken from the book is launched before anything else is
  std::atomic<bool> replays_{false};  // a call was captured: set by expect_replays(), read by let_go()
  FrameBook book_;
  DeviceEvent aside_done_;  // of the latest release outside of a call
  bool released_aside_ = false;
  std::array<std::unique_ptr<DeviceEvent>, max_frames> let_go_;  // behind which nobody reads the frame
};

}  // namespace switchyard::cuda
