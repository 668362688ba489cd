// The send half of a low-latency dispatch: claims rows at the receivers, writes them, and raises the flags.
#include "base/trace.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"
#include "engine/cpu/low_latency/slot_store.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/token_chunks.hpp"
#include "layout/routes.hpp"

namespace switchyard::cpu {

namespace {

constexpr std::int64_t tokens_at_once = 4;

}  // namespace

// Writes the rows of one dispatch into the slots of the ranks of this node.
class SendRows {
 public:
  SendRows(LowLatency& engine, LowLatencyDispatchArgs const& args, FrameUse const& use)
      : engine_(engine),
        slots_(engine.slots_),
        args_(args),
        use_(use),
        rows_(engine.of(use).rows),
        routes_(engine.of(use).routes),
        store_(slots_, rows_, is_too_much_for_caches(slots_, rows_, routes_.total())) {}

  void run(int workers) {
    for (int const peer : slots_.local_ranks()) {
      if (engine_.masked(peer)) continue;
      if (by_expert()) claim_of(peer);
      if (!by_expert()) routes_.place(peer, 0);
    }
    TokenChunks chunks(routes_.tokens(), tokens_at_once);
    engine_.pool_.run(workers, [&](int worker) { place(chunks, worker); });
  }

 private:
  [[nodiscard]] bool by_expert() const { return rows_.layout == SlotLayout::expert_major; }
  [[nodiscard]] int bay(int peer) const { return engine_.of(use_).bays[static_cast<std::size_t>(peer)]; }

  // One addition for all rows of an expert reserves them, and shows the receiver how many there are.
  void claim_of(int peer) {
    std::int64_t* const ranges = slots_.ranges(peer, bay(peer));
    for (int local = 0; local < slots_.experts().count(peer); ++local) {
      SlotRange const range = claim(peer, local);
      routes_.place(slots_.experts().first(peer) + local, range.begin);
      ranges[local * slots_.num_ranks() + slots_.rank()] = range.packed();
    }
  }

  SlotRange claim(int peer, int local) {
    int const count = routes_.count(slots_.experts().first(peer) + local);
    if (count == 0) return {};
    // Relaxed: it comes after the zero that the receiver has stored in Credits::give_back(), since this rank has
    // acquired the credit, and before the receiver's load in take_expert_rows(), since the flag is released later.
    SlotRange const range{slots_.claim(peer, use_.frame, local)
                              .fetch_add(static_cast<std::uint32_t>(count), std::memory_order_relaxed),
                          count};
    if (!range.within(slots_.expert_slots())) {
      engine_.fail_broken("low_latency/send", peer, "claim of an expert's rows at", range.begin);
    }
    return range;
  }

  void place(TokenChunks& chunks, int worker) const {
    TraceScope const span("low_latency/send", slots_.rank(), worker);
    RowLoader loader({args_.x, args_.scales, args_.cast});
    chunks.for_each([&](std::int64_t token) {
      LoadedRow row;  // loaded when the first slot needs it
      for (std::size_t slot = 0; slot < routes_.experts(token).size(); ++slot) {
        if (routes_.row(token, slot) < 0) continue;
        if (row.x == nullptr) row = loader.load(token);
        store(token, slot, row);
      }
    });
    store_fence();  // the release of the flags does not order non-temporal stores
  }

  void store(std::int64_t token, std::size_t slot, LoadedRow const& row) const {
    int const expert = routes_.experts(token)[slot];
    int const peer = routes_.rank_of(expert);
    SlotPlace to{.bay = slots_.bay(peer, bay(peer)), .index = routes_.row(token, slot)};
    if (by_expert()) {
      to.group = expert - slots_.experts().first(peer);
    } else {
      to.index += slots_.rank() * slots_.sizes().max_tokens;
      store_ids(to, token, peer);
    }
    store_.store(to, row, static_cast<std::int32_t>(token));
  }

  void store_ids(SlotPlace const& to, std::int64_t token, int peer) const {
    auto const experts = routes_.experts(token);
    std::int32_t* const ids = store_.ids(to);
    float* const weights = store_.weights(to);
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      bool const theirs = experts[slot] >= 0 && routes_.rank_of(experts[slot]) == peer;
      ids[slot] = theirs ? experts[slot] - slots_.experts().first(peer) : -1;
      if (rows_.weights)
        weights[slot] = theirs ? weight_at(args_.topk_weights, token, static_cast<std::int64_t>(slot)) : 0.0F;
    }
  }

  LowLatency& engine_;
  Slots const& slots_;
  LowLatencyDispatchArgs const& args_;
  FrameUse use_;
  SlotRows rows_;
  SlotRoutes& routes_;
  SlotStore store_;
};

void LowLatency::route(LowLatencyDispatchArgs const& args) {
  check_usable();
  routed_.route(args.topk_idx, args.layout);
}

void LowLatency::send_dispatch(FrameUse const& use, LowLatencyDispatchArgs const& args, int workers) {
  check_usable();
  run_half("low_latency/send", [&] {
    give_earlier_back(use);
    ++dispatches_;
    Frame& frame = of(use);
    std::swap(frame.routes, routed_);
    frame.epoch = use.epoch;
    frame.received = false;
    frame.combines = 0;
    frame.combine_received = true;
    frame.rows = slot_rows_of(args);
    frame.digest = dispatch_digest(args);
    if (over_nodes_) over_nodes_->send(use, args);
    await_credits(use);
    SendRows(*this, args, use).run(workers);
    raise_arrived(use);
  });
}

// Sources wait for this, also where the frame has left a result behind that is held. A result may have been
// released before it was received: sources still write into it, so it is received first.
void LowLatency::give_earlier_back(FrameUse const& next) {
  FrameUse left = next;  // its bay: a result that was not received was not left behind
  left.epoch = next.epoch - 1;
  left.stay.number = 0;
  if (!of(next).received) receive(left, {});
  credits_->give_back(left);
}

// The credit of a receiver is what says where the rows go, too.
void LowLatency::await_credits(FrameUse const& use) {
  std::vector<std::uint64_t> credits(static_cast<std::size_t>(slots_.num_ranks()));
  await_flags({.flags = slots_.credits(slots_.rank(), use.frame),
               .frame = use.frame,
               .epoch = use.epoch - 1,
               .phase = "low_latency/credit",
               .within_node = true,
               .extra_bits = bay_bits,
               .seen = credits.data()});
  for (int const peer : slots_.local_ranks()) {
    if (masked(peer)) continue;
    auto const at = static_cast<std::size_t>(peer);
    int const bay = bay_of_credit(credits[at], use.frame);
    if (bay >= most_bays(*slots_.heap(), slots_.at(), slots_.local_of(peer)))
      fail_broken("low_latency/credit", peer, "bay", bay);
    of(use).bays[at] = bay;
  }
}

void LowLatency::raise_arrived(FrameUse const& use) {
  Frame const& frame = of(use);
  bool const by_rank = frame.rows.layout == SlotLayout::rank_major;
  for (int const peer : slots_.local_ranks()) {
    if (masked(peer)) continue;
    FrameFlag& flag = slots_.arrived(peer, use.frame)[slots_.rank()];
    store_word(flag.rows, by_rank ? static_cast<std::uint64_t>(frame.routes.count(peer)) : 0);
    raise(peer, flag, {use.epoch, frame.digest});
  }
}

}  // namespace switchyard::cpu
