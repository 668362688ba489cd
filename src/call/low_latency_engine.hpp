// What stands behind a LowLatencyBuffer: the interface that every engine implements for the low-latency mode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "switchyard/low_latency.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::detail {

// Holds the result of one dispatch. Its tensors, its handle and its receive hook own it together; when the last of
// them goes, on whichever thread, the frame goes back to its sources. If the frame has gone on without the result,
// which then kept the bay for itself, that is free again.
struct Lease {
  int frame = 0;
  int bay = 0;
  std::uint64_t number = 0;  // of the dispatch since the last reset, counted from 1
  SlotLayout layout = SlotLayout::expert_major;
  std::int64_t num_tokens = 0;      // N of the dispatch
  std::uint64_t buffer_id = 0;      // of the buffer that made it
  std::uint64_t generation = 0;     // resets of the buffer before the dispatch
  bool received = false;            // CUDA engine: the receive half of the dispatch has been queued
  bool combined = false;            // CUDA engine: a combine has been queued
  bool combine_received = true;     // CUDA engine: so has the receive half of the latest one
  std::uint64_t capture = 0;        // CUDA engine: the capture that the dispatch was part of; 0: none
  std::function<void()> give_back;  // runs on any thread and must not throw

  Lease() = default;
  Lease(Lease const&) = delete;
  Lease& operator=(Lease const&) = delete;
  ~Lease() {
    if (give_back) give_back();
  }
};

// The contract between the face (api/low_latency_buffer.cpp) and an engine:
//
// Threads. One thread at a time makes calls and runs hooks. Leases may end on any thread at any time.
//
// Collectives. The constructor, dispatch and combine (each of their halves), gate() and reset() are made by all
// ranks that are not masked, in the same order. What else is here concerns this rank alone.
//
// Arguments arrive unchecked. A rank that refuses a call throws InvalidArgument before anything is sent; its peers
// wait for the corrected call.
//
// Errors. A peer that is late or lost is masked, if the options say so. Otherwise the buffer fails on all ranks,
// and each call throws that error until reset() returns. The same holds where ranks ask for different things.
//
// Ownership. Inputs belong to the caller, who keeps them unchanged until the receive half is complete. Results own
// a lease; no rank overwrites a bay that is leased.
//
// Lifetime. The face calls drain() once, when the caller's last LowLatencyBuffer goes, and then releases the
// engine. Hooks and leases that are left hold what they need of it.
class LowLatencyEngine : public std::enable_shared_from_this<LowLatencyEngine> {
 public:
  LowLatencyEngine() = default;
  virtual ~LowLatencyEngine() = default;
  LowLatencyEngine(LowLatencyEngine const&) = delete;
  LowLatencyEngine& operator=(LowLatencyEngine const&) = delete;

  virtual LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args) = 0;
  // Sets `receive` to the second half. A hook that has run, also one that threw on the CPU engine, does nothing
  // more.
  virtual LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive) = 0;
  virtual void combine(LowLatencyCombineArgs const& args) = 0;
  virtual void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive) = 0;
  virtual Tensor outputs(LowLatencyHandle const& handle, DType dtype) = 0;
  virtual void mask(int rank, bool masked) = 0;
  virtual std::vector<bool> masked() = 0;
  virtual void reset() = 0;
  // Waits for all calls so far and throws what they found.
  virtual void synchronize() = 0;
  // Waits for all calls so far; what they found is of no interest any more.
  virtual void drain() noexcept = 0;
  // See switchyard/measure.hpp.
  virtual void gate(std::uintptr_t cuda_stream) = 0;
  [[nodiscard]] virtual WireCount wire_count() const { return {}; }

  [[nodiscard]] virtual EngineKind engine() const noexcept = 0;
  [[nodiscard]] virtual Communicator const& communicator() const noexcept = 0;
  [[nodiscard]] virtual LowLatencyOptions const& options() const noexcept = 0;
  // Bytes of this rank's slots.
  [[nodiscard]] virtual std::size_t bytes() const noexcept = 0;
  // The same on all ranks, and another for each buffer of the process.
  [[nodiscard]] virtual std::uint64_t buffer_id() const noexcept = 0;
  // CPU engine: where the results of the latest F dispatches lie, as long as no earlier one is held. A GPU reads
  // and writes there, when another engine stands before this one.
  [[nodiscard]] virtual std::span<std::byte> slots() const noexcept { return {}; }
};

// Collective; the table of engines (api/engine_table.cpp) calls one of them. They throw on every rank alike.
std::shared_ptr<LowLatencyEngine> make_cpu_low_latency(Communicator const& communicator,
                                                       LowLatencyOptions const& options);
std::shared_ptr<LowLatencyEngine> make_cuda_low_latency(Communicator const& communicator,
                                                        LowLatencyOptions const& options);
// Of several nodes. `host` makes the calls, with the same options, in memory of the host.
std::shared_ptr<LowLatencyEngine> make_cuda_low_latency_over_nodes(Communicator const& communicator,
                                                                   LowLatencyOptions const& options,
                                                                   std::shared_ptr<LowLatencyEngine> const& host);

}  // namespace switchyard::detail
