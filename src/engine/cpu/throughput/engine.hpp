// Throughput dispatch and combine by direct placement, on CPU memory. Arguments arrive checked (buffer.cpp). Calls
// come one at a time, on the buffer's stream.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "call/throughput.hpp"
#include "control/announce.hpp"
#include "control/control_area.hpp"
#include "control/counters.hpp"
#include "control/signals.hpp"
#include "engine/cpu/throughput/crossing.hpp"
#include "engine/cpu/worker_pool.hpp"
#include "job/job.hpp"
#include "layout/node_in_job.hpp"
#include "layout/routing.hpp"
#include "memory/symmetric_heap.hpp"
#include "plan/ring_plan.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::cpu {

struct EngineOptions {
  int num_experts = 0;
  std::int64_t max_tokens = 0;
  WaitPolicy wait;
  RingPlan rings;             // of a job of several nodes
  bool f32_partials = false;  // see BufferOptions
};

class Engine {
 public:
  // Collective over a job of several nodes.
  Engine(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<Job> const& job, EngineOptions const& options);

  // These fill in the call's results. They throw on every rank alike, or fail the buffer.
  void dispatch(DispatchCall& call);
  void combine(CombineCall& call);

  void check_usable() const { signals_.check_usable(); }
  [[nodiscard]] WireCount wire_count() const { return crossing_ ? crossing_->port().sent() : WireCount{}; }

  // The steps of a reset; see call/reset.hpp. They run on the buffer's stream, too, so no call is under way.
  void end_work() const noexcept {}
  [[nodiscard]] Counters counters() const noexcept { return {.epoch = epoch_}; }
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error) { signals_.fail(error); }

 private:
  friend class DispatchRun;
  friend class CombineRun;
  void run_call(char const* phase, std::function<void()> const& call);
  void run_to_its_end(char const* phase, std::function<void()> const& call);
  [[nodiscard]] Link link() { return {control_, signals_, heap_->rank(), heap_->num_ranks(), node_}; }
  [[nodiscard]] Surroundings surroundings();

  std::shared_ptr<SymmetricHeap> heap_;
  EngineOptions options_;
  NodeInJob node_;
  ExpertSplit experts_;
  ControlArea control_;
  std::unique_ptr<Crossing> crossing_;  // null in a job of one node
  Signals signals_;
  WorkerPool pool_;
  std::uint64_t epoch_ = 0;  // of the last call
};

}  // namespace switchyard::cpu
