// Low-latency dispatch and combine on CPU memory, each in two halves. Arguments arrive checked (buffer.cpp). One
// thread at a time makes calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "call/low_latency.hpp"
#include "control/counters.hpp"
#include "control/signals.hpp"
#include "engine/cpu/low_latency/credits.hpp"
#include "engine/cpu/low_latency/output_sum.hpp"
#include "engine/cpu/low_latency/routes.hpp"
#include "engine/cpu/low_latency/slots.hpp"
#include "engine/cpu/worker_pool.hpp"
#include "job/job.hpp"
#include "scale_out/port_sizes.hpp"

namespace switchyard::cpu {

struct LowLatencySetup {
  SlotSizes sizes;
  WaitPolicy wait;
  bool mask_late_peers = false;
  scale_out::PortSizes port;  // of a job of several nodes
};

// The caller's tensors that a receive half writes: it adds to the first two.
struct ReceiveCounters {
  TensorView received_per_expert{};
  TensorView wait_ns_per_source{};
  TensorView counts{};
};

// A wait for a flag of every peer.
struct FlagWait {
  FrameFlag* flags = nullptr;  // [R], in the own heap
  int frame = 0;
  std::uint64_t epoch = 0;
  char const* phase = "";
  bool within_node = false;  // only of peers of this node
  TensorView wait_ns{};
  int number_bits = 0;  // below the epoch
  std::uint64_t number = 0;
  int extra_bits = 0;             // below that: what else the flag says, which is not compared
  std::uint64_t* seen = nullptr;  // [R]: the words of the peers that are not masked

  [[nodiscard]] std::uint64_t word() const noexcept { return epoch << number_bits | number; }
  [[nodiscard]] bool is_up(std::uint64_t flag) const noexcept { return flag >> extra_bits == word(); }
  [[nodiscard]] std::uint64_t epoch_in(std::uint64_t flag) const noexcept {
    return flag >> (number_bits + extra_bits);
  }
};

class OverNodes;

class LowLatency {
 public:
  // Collective over a job of several nodes.
  LowLatency(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<Job> const& job,
             LowLatencySetup const& setup);
  ~LowLatency();

  [[nodiscard]] Slots const& slots() const noexcept { return slots_; }
  [[nodiscard]] std::shared_ptr<Credits> const& credits() const noexcept { return credits_; }
  [[nodiscard]] std::uint64_t dispatches() const noexcept { return dispatches_; }  // since the last reset
  // The use that the next dispatch will make of a frame, in a bay that is not known yet.
  [[nodiscard]] FrameUse next_use() const;
  // Whether both halves of the frame's latest dispatch are done, and of its combines.
  [[nodiscard]] bool is_at_rest(int frame) const noexcept;

  // Reads the ids; throws InvalidArgument. Nothing is sent or counted, and the routes of a result that is held
  // stay.
  void route(LowLatencyDispatchArgs const& args);
  // Sends what was routed, and counts the call. `use` is the next one, with its bay. This rank must not hold any
  // result in that bay any more.
  void send_dispatch(FrameUse const& use, LowLatencyDispatchArgs const& args, int workers);
  // A receive half succeeds when everything is there, even if a peer has failed the buffer since, in a later call.
  void receive_dispatch(FrameUse const& use, ReceiveCounters const& counters);

  // Throws InvalidArgument if the dispatch has not been received yet, or the combine before this one has not.
  void check_combine(FrameUse const& use);
  void send_combine(FrameUse const& use, LowLatencyCombineArgs const& args, int workers);
  void receive_combine(FrameUse const& use, LowLatencyCombineArgs const& args, int workers);

  void mask(int peer, bool masked);
  // [R]; also notices which peers have masked this rank.
  std::vector<bool> masked();

  // Throws what has failed, and sees to it that other nodes know, whose calls wait for this rank's.
  void check_usable();
  [[nodiscard]] WireCount wire_count() const;

  // The steps of a reset; see call/reset.hpp.
  void end_work() const { credits_->end_generation(); }
  [[nodiscard]] Counters counters() const noexcept { return {}; }
  void clean(Counters const& agreed);
  [[noreturn]] void give_up(Error const& error) { signals_.fail(error); }

 private:
  friend class OverNodes;
  friend class SendRows;
  friend class SumRows;
  // What this rank knows of a frame.
  struct Frame {
    std::uint64_t epoch = 0;
    bool received = true;
    std::uint64_t combines = 0;  // of the latest dispatch; the receive half of the last one is done or not:
    bool combine_received = true;
    SlotRows rows{};
    std::uint64_t digest = 0;
    std::uint64_t combine_digest = 0;
    OutputShape outputs{};
    std::vector<int> bays;  // by rank, where the rows of the latest dispatch went
    SlotRoutes routes;
  };
  // The words that a flag is raised with.
  struct Raised {
    std::uint64_t word = 0;  // its epoch
    std::uint64_t digest = 0;
  };

  [[nodiscard]] Frame& of(FrameUse const& use) noexcept { return frames_[static_cast<std::size_t>(use.frame)]; }
  [[nodiscard]] Frame const& of(FrameUse const& use) const noexcept {
    return frames_[static_cast<std::size_t>(use.frame)];
  }
  [[nodiscard]] bool masked(int peer) const noexcept { return credits_->masked(peer); }

  // wait.cpp
  [[nodiscard]] Surroundings surroundings(std::shared_ptr<Job> const& job);
  void run_half(char const* phase, std::function<void()> const& half);
  void tell_other_nodes(std::uint64_t halves_ahead) noexcept;
  void raise(int peer, FrameFlag& flag, Raised const& to);
  // Returns when each peer has raised its flag or is masked.
  void await_flags(FlagWait const& wait);

  // engine.cpp
  [[noreturn]] void fail_broken(char const* phase, int peer, char const* what, std::int64_t seen);
  void check_digests(FlagWait const& wait, std::uint64_t expected, char const* options);

  // send.cpp
  void give_earlier_back(FrameUse const& next);
  void await_credits(FrameUse const& use);
  void raise_arrived(FrameUse const& use);

  // receive.cpp
  void mask_refusing(FlagWait const& wait);
  void receive(FrameUse const& use, ReceiveCounters const& counters);
  void take_expert_rows(FrameUse const& use, TensorView const& per_expert);
  void take_source_rows(FrameUse const& use, TensorView const& per_expert);
  void count_ids(FrameUse const& use, SlotRange const& rows, TensorView const& per_expert);

  // combine.cpp
  // The slots of the own frame that sources have sent rows into.
  [[nodiscard]] std::vector<std::int64_t> slots_received(FrameUse const& use);
  // Copies or codes the outputs of the rows that were received, unless they are in place already.
  void stage_outputs(FrameUse const& use, LowLatencyCombineArgs const& args, int workers);
  void code_outputs(FrameUse const& use, LowLatencyCombineArgs const& args, int workers);
  void for_each_row(std::size_t rows, int workers, std::function<void(std::size_t)> const& work);
  void raise_ready(FrameUse const& use);
  // A wait for `flags`, which are those of the frame's latest combine.
  [[nodiscard]] FlagWait combine_wait(FrameUse const& use, FrameFlag* flags, char const* phase) const;
  // Returns when all ranks have read the outputs of the combine before this one.
  void meet_readers(FrameUse const& use);

  Slots slots_;
  std::shared_ptr<Credits> credits_;
  std::unique_ptr<OverNodes> over_nodes_;  // null in a job of one node
  Signals signals_;
  WorkerPool pool_;
  bool mask_late_peers_;
  SlotRoutes routed_;  // of the dispatch that is about to be sent
  std::vector<Frame> frames_;
  std::uint64_t dispatches_ = 0;  // since the last reset; they take the frames in turn
};

}  // namespace switchyard::cpu
