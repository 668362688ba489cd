// Dispatch and combine by direct placement, on GPU memory. Arguments are checked before they arrive here; see
// buffer.cpp.
//
// Everything runs on one communication stream: a call first waits for the caller's stream, and the caller's stream
// then waits for the call. The host waits for counts only where it must allocate by them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "call/throughput.hpp"
#include "control/control_area.hpp"
#include "control/counters.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/host/failure_monitor.hpp"
#include "engine/cuda/throughput/args.hpp"
#include "layout/device_control.hpp"
#include "plan/copy_plan.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cuda {

class Engine {
 public:
  // `problem` says what plans need to know of the GPU and its ranks.
  Engine(EngineResources resources, SmProblem const& problem);
  ~Engine();
  Engine(Engine const&) = delete;
  Engine& operator=(Engine const&) = delete;

  // Counts alone. This is not collective. `to` has its tensors.
  struct LayoutCall {
    ConstTensorView topk_idx;
    int workers = 1;
  };
  void get_layout(LayoutCall const& call, Layout const& to, cudaStream_t caller);

  // `caller` is the stream that writes the inputs and reads the results.
  void dispatch(DispatchCall& call, cudaStream_t caller);
  void combine(CombineCall& call, cudaStream_t caller);

  // What is queued on the communication stream from here on starts after what is queued on `caller`. Throws when
  // that stream is being captured into a graph and `capturable` is false, because the host would wait for kernels
  // that do not run.
  void start_after(cudaStream_t caller, bool capturable);

  // Throws what kernels or peers have reported.
  void check_usable() { monitor_.check_usable(); }
  // A point behind all calls so far. Waiting for it throws what the engine knows then, and nothing once `alive` is
  // gone, and the engine with it.
  [[nodiscard]] std::shared_ptr<detail::EventState> record(std::weak_ptr<void> alive);
  // What is queued on `caller` from here on starts after all calls so far.
  void make_caller_wait(cudaStream_t caller);
  // Whether what is queued on `caller` from here on comes behind all that reads free parts of the heap: the latest
  // call has made it wait, or no call ever named another stream.
  [[nodiscard]] bool may_write(cudaStream_t caller) const;
  // Where the time of the latest call went.
  [[nodiscard]] std::vector<PhaseTime> phases() const;
  // The later work of all ranks on their communication streams starts together.
  void gate();
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }

  // The steps of a reset, with an agreement of all ranks after each; see call/reset.hpp.
  void end_work();
  [[nodiscard]] Counters counters() const noexcept;
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error);

  // A block of the heap, which grows if need be. When it cannot, waits for the calls so far, whose blocks are then
  // free.
  [[nodiscard]] std::optional<SymmetricHeap::Block> take(std::size_t bytes);
  // Waits for the calls so far and frees their blocks. This is not for use while a call is being made.
  void reclaim_between_calls();
  // Keeps a block until the kernels of this call have ended. A block that goes into a graph is not kept: its owner
  // must keep it as long as the graph.
  void keep_until_done(SymmetricHeap::Block block);
  // What a dispatch of this buffer received. Waits for it.
  [[nodiscard]] RowCounts counts_of(detail::Routing const& routing);

 private:
  // What is queued on the communication stream from here on starts after what is queued on `caller`. join() does it
  // once for a call that start_after() has begun.
  void join(cudaStream_t caller);
  void make_engine_wait(cudaStream_t caller, bool capturing);
  // The call has launched all its kernels. Its blocks are free when these have ended.
  void close_call();
  // The same for a call that has blocks. Returns the event behind its kernels.
  DeviceEvent const& close_with_event();
  std::unique_ptr<DeviceEvent> spare_event();
  void release_what_is_done();
  void reclaim();
  // Keeps a block that nobody else knows of. One that goes into a graph is kept as long as the buffer, because the
  // graph may be replayed as long.
  void keep_own(SymmetricHeap::Block block);

  struct PrivateMemory {
    SymmetricHeap::Block block;
    bool in_heap = true;  // then somebody must keep it until the kernels are done
  };
  std::optional<PrivateMemory> take_private(DispatchCall& call, std::size_t bytes, std::string const& what);
  void prepare_handle(DispatchCall& call);
  void fill(DispatchCall const& call, NotifyKernelArgs& to) const;
  void notify(DispatchCall& call);
  void finish_counting(DispatchCall& call);
  void read_placement(DispatchCall& call);
  void refuse_in_capture(std::optional<Refusal> const& refusal) const;
  void finish_answers(DispatchCall& call);
  void allocate_block(DispatchCall& call);
  void guess_block(DispatchCall& call);
  void trim_block(DispatchCall& call);
  [[nodiscard]] static std::size_t block_bytes(DispatchCall const& call, std::int64_t rows);
  // The rows that travel, and how they are cut into pieces.
  struct OutgoingRows {
    RowCopy x{};
    float const* scales = nullptr;
    std::int64_t scale_strides[2]{};
    CopyPlan copies{.piece = 0, .stages = 0, .warps = 1};
    std::shared_ptr<void> outside{};  // of the heap: what was cast, until all kernels of the call are queued
  };
  OutgoingRows prepare_rows(DispatchCall& call);
  void cast(DispatchCall& call, OutgoingRows& rows);
  void place_at_once(DispatchCall& call, OutgoingRows const& rows);
  void place_when_counted(DispatchCall& call, OutgoingRows const& rows);
  void place_cached(DispatchCall& call, OutgoingRows const& rows);
  void take_ids(DispatchCall& call);
  void place(DispatchCall& call, OutgoingRows const& rows, DispatchStart start);
  void stage(CombineCall& call, ConstTensorView const& view, SourceTensor& tensor);

  void wait_until(std::function<bool()> const& published);
  // Wait until the kernel of this call has published its ticket, and then for the trouble if it has one.
  void wait_for_ticket();
  void wait_for_answers();
  void check_stream();
  enum class Call : std::uint8_t { dispatch, combine, layout };
  // What this rank knows of a call that may have failed.
  struct Cause {
    CallTerms terms;
    std::optional<Refusal> const& refusal;
    char const* phase;
  };
  // Numbers a call by the first of its tickets.
  void begin_call(Call kind);
  // For the kernels of this call.
  [[nodiscard]] Waiting waiting() const { return monitor_.waiting(first_ticket_); }
  [[noreturn]] void throw_mismatch(Cause const& cause);
  void throw_if_failed(Cause const& cause);
  void reset_device();
  [[nodiscard]] std::optional<Refusal> why_void(detail::Routing const& routing) const;
  void find_bad_id(DispatchCall& call);

  [[nodiscard]] DeviceHandle device_handle(detail::Routing const& routing) const;
  [[nodiscard]] HostMailbox& mailbox() { return monitor_.mailbox(); }
  [[nodiscard]] Link link() { return {control_, monitor_.signals(), heap_->rank(), heap_->num_ranks(), job_}; }
  [[nodiscard]] LayoutCut cut(std::int64_t tokens, int blocks) const;
  [[nodiscard]] LayoutCut cut_for_dispatch(DeviceHandle const& handle, int blocks) const;

  EngineResources resources_;
  SmProblem problem_;
  std::shared_ptr<SymmetricHeap> heap_;  // in GPU memory
  ExpertSplit experts_;
  NodeInJob job_;
  ControlArea control_;
  FailureMonitor monitor_;
  DeviceStream stream_;
  DeviceEvent joined_;
  DeviceEvent finished_;
  Peers peers_{};
  // Bytes of shared memory that a block has for its rings; 0 where there is no copy engine.
  struct Rings {
    std::size_t dispatch = 0;
    std::size_t combine = 0;
  } rings_;
  bool capturing_ = false;              // this call goes into a graph
  bool joined_already_ = false;         // start_after() has made this stream wait for the caller of the next call
  std::optional<cudaStream_t> behind_;  // the caller that make_caller_wait() has made wait, since the latest call
  std::size_t latest_bytes_ = 0;        // of the block of the latest dispatch
  std::uint64_t ticket_ = 0;
  std::uint64_t first_ticket_ = 0;  // of this call
  std::uint64_t calls_ = 0;         // numbers dispatches, the same on all ranks
  std::uint64_t host_epoch_ = 0;    // of agreements through the control blocks in host memory
  std::uint64_t gates_ = 0;
  Call latest_ = Call::dispatch;
  // Blocks that kernels still use, although their owners may have released them.
  std::deque<std::pair<std::unique_ptr<DeviceEvent>, std::vector<SymmetricHeap::Block>>> in_use_;
  std::vector<std::unique_ptr<DeviceEvent>> spare_events_;
  std::vector<SymmetricHeap::Block> of_this_call_;
  DeviceState at_rest_{};  // as the last kernel before a reset left it
  // Numbers of dispatches that failed before a reset. The routes of their handles may lead anywhere.
  struct Numbers {
    std::uint64_t begin;
    std::uint64_t end;
  };
  std::vector<Numbers> void_;
  std::vector<SymmetricHeap::Block> of_graphs_;
};

}  // namespace switchyard::cuda
