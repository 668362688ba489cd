// What stands behind a Buffer: the interface that every engine implements for the throughput mode.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "memory/symmetric_heap.hpp"
#include "switchyard/buffer.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::detail {

// The contract between the face (api/buffer.cpp) and an engine:
//
// Threads. One thread at a time makes calls. heap(), options(), engine() and communicator() may be called on
// any thread while another makes a call.
//
// Collectives. The constructor, dispatch and combine in all their forms, gate() and reset() are made by all ranks,
// in the same order. What else is here concerns this rank alone.
//
// Arguments arrive unchecked. The engine checks them, and a rank that refuses says so to its peers.
//
// Errors. A refusal (InvalidArgument, OutOfMemory) is thrown on every rank alike, before anything has moved, and
// the buffer stays usable; BufferOptions::errors_at_once says what becomes of one where hosts do not wait. After
// any other error (PeerLost, Timeout, SystemError) the buffer has failed on all ranks: each call throws that error
// until reset() returns. An asynchronous call throws through its Pending and its event.
//
// Ownership. Inputs belong to the caller, who keeps them unchanged until the call, or its event, is complete.
// Results own their memory and keep what it lies in, so they may outlive the engine. A handle holds no memory of
// the heap on the CPU engine, and the device side of its routing on the CUDA engine.
//
// Lifetime. The face calls drain() once, when the caller's last Buffer goes, and then releases the engine. Tasks
// and events that are still queued hold it.
class ThroughputEngine : public std::enable_shared_from_this<ThroughputEngine> {
 public:
  ThroughputEngine() = default;
  virtual ~ThroughputEngine() = default;
  ThroughputEngine(ThroughputEngine const&) = delete;
  ThroughputEngine& operator=(ThroughputEngine const&) = delete;

  virtual Layout get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream) = 0;
  virtual Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream) = 0;
  virtual Dispatched dispatch(DispatchArgs const& args) = 0;
  virtual Pending<Dispatched> dispatch_async(DispatchArgs const& args) = 0;
  virtual Combined combine(CombineArgs const& args) = 0;
  virtual Pending<Combined> combine_async(CombineArgs const& args) = 0;
  // Throws OutOfMemory on this rank only.
  virtual Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) = 0;
  // See Buffer. What is not checked there are the tensors.
  virtual bool add_received(Handle const& handle, TensorView const& to, std::uintptr_t cuda_stream) = 0;
  virtual Tensor by_column(ConstTensorView const& scales, std::uintptr_t cuda_stream) = 0;
  virtual Tensor copy(ConstTensorView const& source, std::uintptr_t cuda_stream) = 0;
  // Waits for all calls so far and throws what they found.
  virtual void synchronize() = 0;
  virtual void reset() = 0;
  // Waits for all calls so far; what they found is of no interest any more.
  virtual void drain() noexcept = 0;

  // See switchyard/measure.hpp. An engine that runs in the calling thread has nothing to release or to report.
  virtual void gate() {}
  [[nodiscard]] virtual std::vector<PhaseTime> phases() const { return {}; }
  [[nodiscard]] virtual WireCount wire_count() const { return {}; }
  // An engine that counts (call/call_counter.hpp) implements both, and then counts all that CallCounts has.
  virtual void count_calls(bool on);
  [[nodiscard]] virtual CallCounts call_counts() const;

  // Throws Unsupported where asynchronous calls do not run on a Stream.
  virtual Stream& stream() = 0;
  // 0 where calls do not run on a CUDA stream.
  [[nodiscard]] virtual std::uintptr_t cuda_stream() const noexcept = 0;
  [[nodiscard]] virtual EngineKind engine() const noexcept = 0;
  [[nodiscard]] virtual Communicator const& communicator() const noexcept = 0;
  [[nodiscard]] virtual BufferOptions const& options() const noexcept = 0;
  [[nodiscard]] virtual SymmetricHeap& heap() const noexcept = 0;
  // See Buffer::trim. Any thread calls it.
  virtual std::size_t trim() { return heap().give_back(); }
};

// Collective; the table of engines (api/engine_table.cpp) calls one of them. They throw on every rank alike.
std::shared_ptr<ThroughputEngine> make_cpu_throughput(Communicator const& communicator,
                                                      BufferOptions const& options);
std::shared_ptr<ThroughputEngine> make_cuda_throughput(Communicator const& communicator,
                                                       BufferOptions const& options);

}  // namespace switchyard::detail
