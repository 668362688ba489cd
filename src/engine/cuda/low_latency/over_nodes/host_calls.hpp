// The halves of low-latency calls over nodes, as the host's engine makes them: one after another on the thread of
// StreamTasks, between what kernels copy to pinned memory and from there.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "call/low_latency.hpp"
#include "engine/cuda/low_latency/over_nodes/staging.hpp"

namespace switchyard::cuda {

// One dispatch with its combines; in a CUDA graph, all replays of it. The host's engine gets its frame back as soon
// as nothing more can come of the result there: what the caller holds is the GPU's copy.
struct HostUse {
  std::uint64_t number = 0;  // which, from 1 on
  StagedFrame const* frame = nullptr;
  bool captured = false;
  // Of the thread that makes the calls.
  ReceiveHook receive_dispatch{};
  ReceiveHook receive_combine{};
  // HostCalls has the lock for these.
  LowLatencyReceived received{};
  int pending = 0;        // halves that are queued outside of graphs and have not been made
  bool combined = false;  // both halves of a combine have been made
  bool released = false;  // by the caller: nothing more will be queued
};

// A half that is queued.
struct HostHalf {
  std::shared_ptr<HostUse> use;
  bool counted = false;  // in HostUse::pending
};

class HostCalls {
 public:
  HostCalls(std::shared_ptr<detail::LowLatencyEngine> host, Staging& staging);

  // On the caller's thread, before a half is queued.
  HostHalf expect(std::shared_ptr<HostUse> const& use, bool captured);

  // The halves. A call that fails says so to all that come later, here and in CallEnd::good. The arguments are
  // those of the host's engine; ids that are out of range become -1.
  void send_dispatch(HostHalf const& half, LowLatencyDispatchArgs const& args) noexcept;
  void receive_dispatch(HostHalf const& half) noexcept;
  // `args.x` as it is, or, if it is not given, the outputs of the host's engine.
  void send_combine(HostHalf const& half, LowLatencyCombineArgs args) noexcept;
  void receive_combine(HostHalf const& half) noexcept;

  // Waits for all ranks.
  void meet() noexcept;
  // Nothing but the end of a receive half: the stream that waits for it knows that all halves before have been
  // made.
  void settle() noexcept;

  // The caller has no handle of it any more. Any thread calls it.
  void release(HostUse& use) noexcept;

  // All later calls throw this, until a reset.
  void fail(Error const& error) noexcept;
  // Throws what has failed, or names an id that was out of range.
  void check_usable();
  // For what the engine does besides these halves: no half is made meanwhile.
  template <typename Action>
  auto with_host(Action const& action) {
    std::lock_guard const lock(making_);
    return action(*host_);
  }
  // All ranks reset; results are void.
  void reset();

 private:
  using BadSlot = std::pair<std::int64_t, std::int64_t>;  // token, slot

  template <typename Half>
  bool make(Half const& half) noexcept;
  void void_results() noexcept;
  void take_turn(std::shared_ptr<HostUse> const& use);
  void check_ids(LowLatencyDispatchArgs const& args);
  [[noreturn]] void throw_broken(std::string const& text) const;
  void check_counts(HostUse const& use) const;
  void publish(HostUse const& use);
  [[nodiscard]] std::byte* pinned(TensorView const& part) const;
  void end_half(HostHalf const& half, bool combined) noexcept;
  void end_receive(bool good) noexcept;

  std::shared_ptr<detail::LowLatencyEngine> host_;
  Staging& staging_;
  std::mutex making_;             // one half at a time; guards what follows
  std::uint64_t dispatches_ = 0;  // since the last reset
  // By frame of the host's engine. A result there goes when its lock is held, so that the engine never finds one on
  // its way out.
  std::vector<std::shared_ptr<HostUse>> turns_;
  std::vector<std::int64_t> rows_;  // of each expert, of the dispatch that is about to be sent

  std::mutex state_;  // guards what follows, and parts of HostUse
  std::optional<Error> failure_;
  std::optional<BadSlot> bad_slot_;
};

}  // namespace switchyard::cuda
