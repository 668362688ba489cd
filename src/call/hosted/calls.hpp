// Throughput dispatch and combine by direct placement, where hosts make the rounds of a call: they announce, count,
// answer and meet in control blocks of their memory, and write to other nodes. Who moves the rows is for a RowMover
// to know. Arguments arrive checked. Calls come one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "call/call_counter.hpp"
#include "call/hosted/crossing.hpp"
#include "call/hosted/row_mover.hpp"
#include "call/throughput.hpp"
#include "control/announce.hpp"
#include "control/control_area.hpp"
#include "control/counters.hpp"
#include "control/signals.hpp"
#include "job/job.hpp"
#include "layout/experts.hpp"
#include "layout/node_in_job.hpp"
#include "memory/symmetric_heap.hpp"
#include "plan/ring_plan.hpp"
#include "scale_out/port.hpp"

namespace switchyard {

struct HostedOptions {
  int num_experts = 0;
  std::int64_t max_tokens = 0;
  WaitPolicy wait;
  RingPlan rings;             // of a job of several nodes
  bool f32_partials = false;  // see BufferOptions
  scale_out::PinMemory pin{};
};

// The segments of a buffer: control blocks of hosts, and the heap that rows lie in. They may be the same.
struct HostedHeaps {
  std::shared_ptr<SymmetricHeap> control;
  std::shared_ptr<SymmetricHeap> rows;
};

class HostedCalls {
 public:
  // Collective over a job of several nodes. `mover` must outlive the calls.
  HostedCalls(HostedHeaps heaps, std::shared_ptr<Job> const& job, RowMover& mover, HostedOptions const& options);

  // These fill in the call's results. They throw on every rank alike, or fail the buffer.
  void dispatch(DispatchCall& call);
  void combine(CombineCall& call);
  // Takes memory for those inputs of a combine that must be copied for peers to read them; without it refuses the
  // call. combine() does it unless it was done.
  void take_staging(CombineCall& call);

  void check_usable() const { signals_.check_usable(); }
  [[nodiscard]] CallCounter& counter() noexcept { return counter_; }
  [[nodiscard]] CallCounter const& counter() const noexcept { return counter_; }
  [[nodiscard]] WireCount wire_count() const { return crossing_ ? crossing_->port().sent() : WireCount{}; }

  // The steps of a reset; see call/reset.hpp. No call is under way.
  void end_work() const noexcept {}
  [[nodiscard]] Counters counters() const noexcept { return {.epoch = epoch_}; }
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error) { signals_.fail(error); }

 private:
  friend class DispatchRun;
  friend class CombineRun;
  void run_call(char const* phase, std::function<void()> const& call);
  void run_to_its_end(char const* phase, std::function<void()> const& call);
  void take_staging(CombineCall& call, ConstTensorView const& view, std::optional<SymmetricHeap::Block>& block);
  [[nodiscard]] Link link(std::span<std::int64_t> wait_ns) {
    return {control_, signals_, heap_->rank(), heap_->num_ranks(), node_, wait_ns};
  }
  [[nodiscard]] Surroundings surroundings(std::shared_ptr<Job> const& job);

  std::shared_ptr<SymmetricHeap> heap_;  // of rows
  RowMover& mover_;
  HostedOptions options_;
  NodeInJob node_;
  ExpertSplit experts_;
  ControlArea control_;
  std::unique_ptr<Crossing> crossing_;  // null in a job of one node
  Signals signals_;
  CallCounter counter_;
  std::uint64_t epoch_ = 0;  // of the last call
};

}  // namespace switchyard
