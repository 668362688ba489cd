// LowLatencyBuffer on the CPU engine.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "call/bays.hpp"
#include "call/low_latency.hpp"
#include "call/reset.hpp"
#include "call/setup.hpp"
#include "call/slot_port.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "job/job.hpp"
#include "layout/served_ranks.hpp"
#include "node/agreement.hpp"
#include "node/host_heap.hpp"

namespace switchyard::detail {

namespace {

using cpu::FrameUse;

// Collective. When one rank refuses, all throw its error.
SlotSizes agree_on_sizes(Job& job, LowLatencyOptions const& options) {
  agree(job, refusal_of([&] { check_low_latency_options(options, job.size()); }));
  SlotSizes sizes = slot_sizes_of(options, job.size());
  Topology const& topology = job.topology();
  int const node = topology.node_of(job.rank());
  sizes.local_ranks = topology.num_ranks_of(node);
  sizes.served = ServedRanks(topology, node).most();
  return sizes;
}

// Addresses for all bays that there may ever be, as far as every rank may map them: memory is taken when it is
// first written. Collective.
BufferSetup agree_on_slots(Job& job, LowLatencyOptions const& options, SlotSizes const& sizes) {
  SlotLayoutBytes const at = slot_layout(sizes);
  BufferSetup setup = agree_on_setup(job, buffer_options_of(options, at.bytes));
  std::size_t const most = most_host_heap(setup.plan, agree_on_host_bounds(job), job.node()->size());
  std::size_t const of_all_bays = align_up(at.bay(max_bays), page_bytes);
  setup.plan = with_heap(setup.plan, std::max(setup.plan.heap_bytes, std::min(most, of_all_bays)));
  return setup;
}

ConnectedHeap connect_slots(Job& job, LowLatencyOptions const& options, BufferPlan const& plan) {
  auto const sizes = size_options_of(options);
  return connect_heap(job, *job.node(), {"LowLatencyOptions", sizes, low_latency_sizes}, plan);
}

// A lease with the dispatch's use of its frame.
struct CpuLease final : Lease {
  FrameUse use;
};

class CpuLowLatency;

// The receive half of a call that has been sent, and what it needs until it runs.
template <typename Args>
struct PendingReceive {
  std::shared_ptr<CpuLowLatency> state;
  std::shared_ptr<Lease> lease;  // null once it has run
  FrameUse use;
  Args args;
};

class CpuLowLatency final : public LowLatencyEngine {
 public:
  CpuLowLatency(Communicator communicator, LowLatencyOptions const& options)
      : communicator_(std::move(communicator)),
        sizes_(agree_on_sizes(*communicator_.job(), options)),
        setup_(agree_on_slots(*communicator_.job(), options, sizes_)),
        connected_(connect_slots(*communicator_.job(), options, setup_.plan)),
        info_{.options = options,
              .num_ranks = communicator_.size(),
              .rank = communicator_.rank(),
              .buffer_id = connected_.buffer_id},
        engine_(connected_.heap, communicator_.job(),
                {.sizes = sizes_,
                 .wait = setup_.wait,
                 .mask_late_peers = options.mask_late_peers,
                 .port = slot_port_sizes(options, sizes_, communicator_.job()->topology())}),
        leases_(static_cast<std::size_t>(sizes_.frames)) {
    for (int rank = 0; rank < info_.num_ranks; ++rank)
      if (communicator_.job()->is_absent(rank)) engine_.mask(rank, true);
  }

  LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args) override {
    LowLatencyReceived result = send(args);
    engine_.receive_dispatch(use_of(result.handle), counters_of(args));
    return result;
  }

  LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive) override {
    auto pending = std::make_shared<PendingReceive<cpu::ReceiveCounters>>();
    LowLatencyReceived result = send(args);
    *pending = {self(), result.handle.lease(), use_of(result.handle), counters_of(args)};
    receive = [pending = std::move(pending)](std::uintptr_t) {
      finish(*pending,
             [](CpuLowLatency& state, auto const& of) { state.engine_.receive_dispatch(of.use, of.args); });
    };
    return result;
  }

  void combine(LowLatencyCombineArgs const& args) override {
    send(args);
    engine_.receive_combine(use_of(args.handle), args, workers(args.num_workers));
  }

  void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive) override {
    auto pending = std::make_shared<PendingReceive<LowLatencyCombineArgs>>();
    send(args);
    *pending = {self(), args.handle.lease(), use_of(args.handle), args};
    pending->args.handle = {};  // so that `lease` is the only owner
    receive = [pending = std::move(pending)](std::uintptr_t) {
      finish(*pending, [](CpuLowLatency& state, auto const& of) {
        state.engine_.receive_combine(of.use, of.args, state.workers(of.args.num_workers));
      });
    };
  }

  Tensor outputs(LowLatencyHandle const& handle, DType dtype) override {
    check_low_latency_handle(handle, info());
    check_outputs_dtype(dtype);
    return outputs_in(place_of(use_of(handle)), sizes_, dtype, info_.options.hidden, handle.lease());
  }

  void mask(int rank, bool masked) override {
    check_peer(rank, info());
    engine_.mask(rank, masked);
  }
  std::vector<bool> masked() override { return engine_.masked(); }
  void reset() override {
    Job& job = *communicator_.job();
    reset_together(job, engine_);
    agree(job, refusal_of([this] { engine_.credits()->publish_bays(); }));
  }
  void synchronize() override {}  // calls are done when they return, and have thrown what they found
  void gate(std::uintptr_t) override { communicator_.barrier(); }
  [[nodiscard]] WireCount wire_count() const override { return engine_.wire_count(); }
  void drain() noexcept override {}
  [[nodiscard]] EngineKind engine() const noexcept override { return EngineKind::cpu; }
  [[nodiscard]] Communicator const& communicator() const noexcept override { return communicator_; }
  [[nodiscard]] LowLatencyOptions const& options() const noexcept override { return info_.options; }
  [[nodiscard]] std::size_t bytes() const noexcept override { return slot_layout(sizes_).bytes; }
  [[nodiscard]] std::uint64_t buffer_id() const noexcept override { return info_.buffer_id; }
  [[nodiscard]] std::span<std::byte> slots() const noexcept override {
    SlotLayoutBytes const at = slot_layout(sizes_);
    return {connected_.heap->heap(connected_.heap->rank()) + at.bays, at.bytes - at.bays};
  }

 private:
  std::shared_ptr<CpuLowLatency> self() { return std::static_pointer_cast<CpuLowLatency>(shared_from_this()); }

  [[nodiscard]] LowLatencyInfo info() const {
    LowLatencyInfo info = info_;
    info.generation = engine_.credits()->generation();
    return info;
  }
  [[nodiscard]] int workers(int of_call) const { return of_call > 0 ? of_call : setup_.plan.num_workers; }
  [[nodiscard]] BayPlace place_of(FrameUse const& use) const {
    return {.bay = engine_.slots().bay(info_.rank, use.stay.bay), .local_experts = engine_.slots().local_experts()};
  }
  // The handle must have been checked.
  static FrameUse use_of(LowLatencyHandle const& handle) {
    return static_cast<CpuLease const&>(*handle.lease()).use;
  }
  static cpu::ReceiveCounters counters_of(LowLatencyDispatchArgs const& args) {
    return {.received_per_expert = args.received_per_expert,
            .wait_ns_per_source = args.wait_ns_per_source,
            .counts = args.counts};
  }

  std::shared_ptr<Lease> make_lease(FrameUse const& use, LowLatencyDispatchArgs const& args) const {
    auto lease = std::make_shared<CpuLease>();
    lease->frame = use.frame;
    lease->bay = use.stay.bay;
    lease->number = engine_.dispatches() + 1;
    lease->layout = args.layout;
    lease->num_tokens = args.x.size(0);
    lease->buffer_id = info_.buffer_id;
    lease->generation = use.generation;
    lease->use = use;
    lease->give_back = [credits = engine_.credits(), use] { credits->give_back(use); };
    return lease;
  }

  // The send halves. Nothing is sent or counted before the engine's own send half.
  LowLatencyReceived send(LowLatencyDispatchArgs const& args) {
    engine_.check_usable();
    check_low_latency_dispatch(args, info());
    FrameUse use = engine_.next_use();
    std::weak_ptr<Lease>& earlier = leases_[static_cast<std::size_t>(use.frame)];
    // A lease from before a reset is void, whoever holds it.
    auto held = earlier.lock();
    if (held != nullptr && held->generation != use.generation) held = nullptr;
    if (held != nullptr) check_may_move({.received = engine_.is_at_rest(use.frame), .frames = sizes_.frames});
    engine_.route(args);
    use.stay = take_bay(use.frame, held.get());
    auto const lease = make_lease(use, args);
    LowLatencyReceived result = received_in(place_of(use), sizes_, slot_rows_of(args), lease);
    earlier = lease;
    engine_.send_dispatch(use, args, workers(args.num_workers));
    return result;
  }

  // The frame's bay for the next dispatch: another one, if the present one has a result that is held.
  BayStay take_bay(int frame, Lease const* held) {
    Bays& bays = engine_.credits()->bays();
    if (held != nullptr && held->bay == bays.of(frame)) bays.move(frame);
    return bays.begin(frame);
  }

  void send(LowLatencyCombineArgs const& args) {
    engine_.check_usable();
    check_low_latency_combine(args, info());
    check_latest(args.handle, info(), engine_.dispatches());
    auto const use = use_of(args.handle);
    check_coding(args, place_of(use).bay + engine_.slots().at().outputs);
    engine_.check_combine(use_of(args.handle));
    engine_.send_combine(use_of(args.handle), args, workers(args.num_workers));
  }

  template <typename Args, typename Run>
  static void finish(PendingReceive<Args>& pending, Run const& run) {
    // Both are held until the half has run, and are released then, also when it throws.
    auto const state = std::exchange(pending.state, nullptr);
    auto const lease = std::exchange(pending.lease, nullptr);
    if (lease == nullptr) return;
    require(lease->generation == state->engine_.credits()->generation(),
            "receive hook: expected one of a call after the last reset, seen one from before");
    run(*state, pending);
  }

  Communicator communicator_;
  SlotSizes sizes_;
  BufferSetup setup_;
  ConnectedHeap connected_;
  LowLatencyInfo info_;  // all but the generation, which the credits have
  cpu::LowLatency engine_;
  std::vector<std::weak_ptr<Lease>> leases_;  // by frame, that of the latest dispatch
};

}  // namespace

std::shared_ptr<LowLatencyEngine> make_cpu_low_latency(Communicator const& communicator,
                                                       LowLatencyOptions const& options) {
  return std::make_shared<CpuLowLatency>(communicator, options);
}

}  // namespace switchyard::detail
