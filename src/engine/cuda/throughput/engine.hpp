// Dispatch and combine by direct placement, on GPU memory. Arguments arrive checked; see src/api/.
//
// Everything runs on one communication stream: a call first waits for the caller's stream, and the caller's stream
// then waits for the call. The host waits for counts only where it must allocate by them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "call/throughput.hpp"
#include "control/control_area.hpp"
#include "control/counters.hpp"
#include "control/signals.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/host/host_mailbox.hpp"
#include "engine/cuda/host/watchdog.hpp"
#include "engine/cuda/throughput/args.hpp"
#include "layout/device_control.hpp"
#include "plan/copy_plan.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cuda {

struct EngineOptions {
  int device = 0;
  int ranks_per_gpu = 1;
  DeviceSizes sizes;
  WaitPolicy wait;
};

// What the engine stands on: GPU segments for rows and flags, host segments for what ranks say when a call goes
// wrong.
struct Foundation {
  std::shared_ptr<SymmetricHeap> device_heap;
  std::shared_ptr<SymmetricHeap> host_heap;
  std::shared_ptr<Node> node;
};

class Engine {
 public:
  Engine(Foundation foundation, EngineOptions const& options);
  ~Engine();
  Engine(Engine const&) = delete;
  Engine& operator=(Engine const&) = delete;

  // Counts alone; not collective. `to` has its tensors.
  struct LayoutCall {
    ConstTensorView topk_idx;
    int workers = 1;
  };
  void get_layout(LayoutCall const& call, Layout const& to, cudaStream_t caller);

  // `caller`: the stream that inputs are written on and results are read on.
  void dispatch(DispatchCall& call, cudaStream_t caller);
  void combine(CombineCall& call, cudaStream_t caller);

  // What is queued on the communication stream from here on starts after what is queued on `caller`. Throws when
  // the stream is being captured into a graph and `capturable` is false: the host would wait for kernels that do
  // not run.
  void follow(cudaStream_t caller, bool capturable);

  // Throws what kernels or peers have reported.
  void check_usable();
  // A point behind all calls so far.
  // What it throws is what the engine knows then; nothing once `alive` is gone, and the engine with it.
  [[nodiscard]] std::shared_ptr<detail::EventState> record(std::weak_ptr<void> alive);
  // From here on `caller` waits for all calls so far.
  void hold(cudaStream_t caller);
  // Of the latest call.
  [[nodiscard]] std::vector<PhaseTime> phases() const;
  // All ranks' later work on the communication stream starts together.
  void gate();
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }

  // The steps of a reset, with an agreement of all ranks after each; see api/reset.hpp.
  void end_work();
  [[nodiscard]] Counters counters() const noexcept;
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error);

  // A block of the heap. When there is none at once, waits for the calls so far, whose blocks are then free.
  [[nodiscard]] std::optional<SymmetricHeap::Block> take(std::size_t bytes);
  // The call so far has launched all its kernels: once they are done, its blocks are free.
  void close_call();
  // Waits for the calls so far and lets go of their blocks. Not while a call is being made.
  void reclaim_between_calls();
  // A block that kernels of the latest call use, though nobody else keeps it.
  void keep_until_done(SymmetricHeap::Block block);
  // What a dispatch of this buffer received; waits for it.
  [[nodiscard]] RowCounts counts_of(detail::Routing const& routing);

 private:
  // Calls between two resets; their events outlive them.
  struct Era {
    std::optional<Error> failure;  // how it ended; guarded by trouble_mutex_
  };
  void join(cudaStream_t caller);
  void reclaim();
  // A block that only the engine knows of: a graph that uses it may be replayed as long as the buffer lives.
  void keep_own(SymmetricHeap::Block block);
  void look();

  void prepare_handle(DispatchCall& call);
  void fill(DispatchCall const& call, NotifyArgs& to) const;
  void notify(DispatchCall& call);
  void settle_placement(DispatchCall& call);
  void read_placement(DispatchCall& call);
  void refuse_in_capture(std::optional<Refusal> const& refusal) const;
  void settle_answers(DispatchCall& call);
  void allocate_block(DispatchCall& call);
  void guess_block(DispatchCall& call);
  void trim_block(DispatchCall& call);
  [[nodiscard]] static std::size_t block_bytes(DispatchCall const& call);
  // What travels, and how it is cut.
  struct Payload {
    RowCopy x{};
    float const* scales = nullptr;
    std::int64_t scale_strides[2]{};
    CopyPlan copies{.piece = 0, .stages = 0, .warps = 1};
  };
  Payload prepare_payload(DispatchCall& call);
  void cast(DispatchCall& call, Payload& payload);
  void place_at_once(DispatchCall& call, Payload const& payload);
  void place_when_counted(DispatchCall& call, Payload const& payload);
  void place_cached(DispatchCall& call, Payload const& payload);
  void place(DispatchCall& call, Payload const& payload, Opening opening);
  void stage(CombineCall& call, ConstTensorView const& view, SourceTensor& tensor);

  void await(std::function<bool()> const& told);
  // Until the kernel of this call has told; then also for what went wrong, if anything did.
  void await_ticket();
  void await_answers();
  void check_stream();
  // What this rank knows of a call that fails.
  struct Cause {
    CallTerms terms;
    std::optional<Refusal> const& refusal;
    char const* phase;
  };
  [[noreturn]] void explain(Cause const& cause);
  void settle(Cause const& cause);
  void reset_device();
  void watch();
  void end_era();
  void check(Era const& era);
  [[nodiscard]] std::optional<Refusal> why_void(detail::Routing const& routing) const;
  void find_bad_id(DispatchCall& call);
  [[noreturn]] void raise_trouble();

  [[nodiscard]] DeviceHandle device_handle(detail::Routing const& routing) const;
  [[nodiscard]] Waiting waiting() const;
  [[nodiscard]] Link link() { return {control_, signals_, heap_->rank(), heap_->num_ranks()}; }
  [[nodiscard]] LayoutCut cut(std::int64_t tokens, int blocks) const;

  std::shared_ptr<SymmetricHeap> heap_;
  std::shared_ptr<Node> node_;
  EngineOptions options_;
  ExpertSplit experts_;
  ControlArea control_;
  Signals signals_;
  HostMailbox mailbox_;
  DeviceStream stream_;
  DeviceEvent joined_;
  DeviceEvent finished_;
  Peers peers_{};
  // Shared memory of a block for its rings; 0: no copy engine.
  struct Rings {
    std::size_t dispatch = 0;
    std::size_t combine = 0;
  } rings_;
  bool capturing_ = false;  // this call goes into a graph
  std::uint64_t ticket_ = 0;
  std::uint64_t calls_ = 0;       // numbers dispatches, the same on all ranks
  std::uint64_t host_epoch_ = 0;  // of agreements through the host's control blocks
  std::uint64_t gates_ = 0;
  enum class Call : std::uint8_t { dispatch, combine, layout };
  Call latest_ = Call::dispatch;
  // Blocks that kernels still use, though their owners may have let go.
  std::deque<std::pair<std::unique_ptr<DeviceEvent>, std::vector<SymmetricHeap::Block>>> in_use_;
  std::vector<SymmetricHeap::Block> of_this_call_;
  // Held while a trouble is made a failure that peers hear of, so that none of before a reset comes after it.
  std::mutex trouble_mutex_;
  std::shared_ptr<Era> era_ = std::make_shared<Era>();
  DeviceState at_rest_{};  // what the last kernel before a reset left
  // Numbers of dispatches that failed before a reset: their handles may lead anywhere.
  struct Numbers {
    std::uint64_t begin;
    std::uint64_t end;
  };
  std::vector<Numbers> void_;
  std::vector<SymmetricHeap::Block> of_graphs_;
  std::unique_ptr<Watchdog> watchdog_;  // last: looks at all of the above
};

}  // namespace switchyard::cuda
