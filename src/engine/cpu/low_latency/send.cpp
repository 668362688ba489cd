// The send half of a low-latency dispatch: claims rows at the receivers, writes them, and raises the flags.
#include <cstring>

#include "base/trace.hpp"
#include "engine/cpu/guarded_call.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/token_chunks.hpp"
#include "layout/routes.hpp"

namespace switchyard::cpu {

namespace {

constexpr std::int64_t tokens_at_once = 4;

// While the rows of all ranks together are no more than this (a part of a last-level cache), their receivers find
// them in the cache, and a dispatch takes half the time that it takes with stores past the caches. With more it is
// the other way round. All ranks are taken to send as much as this one.
constexpr std::size_t most_cached = std::size_t{8} << 20;

}  // namespace

// Writes the rows of one dispatch into the slots of all ranks.
class SendRows {
 public:
  SendRows(LowLatency& engine, LowLatencyDispatchArgs const& args, FrameUse const& use)
      : engine_(engine),
        slots_(engine.slots_),
        args_(args),
        use_(use),
        rows_(engine.of(use).rows),
        routes_(engine.of(use).routes) {}

  void run(int workers) {
    for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
      if (engine_.masked(peer)) continue;
      if (by_expert()) claim_of(peer);
      if (!by_expert()) routes_.place(peer, 0);
    }
    streamed_ = static_cast<std::size_t>(slots_.num_ranks()) * routes_.total() * rows_.row_bytes() > most_cached;
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
    std::byte* const bay = slots_.bay(peer, this->bay(peer));
    SlotLayoutBytes const& at = slots_.at();
    std::int64_t index = routes_.row(token, slot);
    if (by_expert()) {
      int const local = expert - slots_.experts().first(peer);
      store_scales(bay + at.scales, local, index, row);
      index += local * slots_.expert_slots();
    } else {
      index += slots_.rank() * slots_.sizes().max_tokens;
      store_scales(bay + at.scales, 0, index, row);
      store_ids(bay, token, peer, index);
    }
    copy_row(bay + at.x + static_cast<std::size_t>(index) * rows_.row_bytes(), row.x);
    reinterpret_cast<std::int32_t*>(bay + at.source_token)[index] = static_cast<std::int32_t>(token);
  }

  void copy_row(std::byte* to, std::byte const* from) const {
    if (streamed_) {
      stream_copy(to, from, rows_.row_bytes());
    } else {
      std::memcpy(to, from, rows_.row_bytes());
    }
  }

  void store_scales(std::byte* scales, std::int64_t group, std::int64_t index, LoadedRow const& row) const {
    if (row.scales == nullptr) return;
    std::size_t const slots = static_cast<std::size_t>(group * slots_.expert_slots());
    std::byte* const to = scales + slots * rows_.scale_bytes();
    if (!rows_.column_major()) {
      std::memcpy(to + static_cast<std::size_t>(index) * rows_.scale_bytes(), row.scales, rows_.scale_bytes());
      return;
    }
    auto* column = reinterpret_cast<std::uint32_t*>(to) + index;
    for (std::int64_t element = 0; element < rows_.scale_elements; ++element, column += slots_.expert_slots())
      std::memcpy(column, row.scales + static_cast<std::size_t>(element) * sizeof *column, sizeof *column);
  }

  void store_ids(std::byte* bay, std::int64_t token, int peer, std::int64_t index) const {
    auto const experts = routes_.experts(token);
    std::int64_t const first = index * slots_.sizes().top_k;
    auto* const ids = reinterpret_cast<std::int32_t*>(bay + slots_.at().topk_idx) + first;
    auto* const weights = reinterpret_cast<float*>(bay + slots_.at().topk_weights) + first;
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
  bool streamed_ = false;
};

void LowLatency::route(LowLatencyDispatchArgs const& args) {
  check_usable();
  routed_.route(args.topk_idx, args.layout);
}

void LowLatency::send_dispatch(FrameUse const& use, LowLatencyDispatchArgs const& args, int workers) {
  check_usable();
  guarded_call(signals_, {slots_.rank(), "low_latency/send"}, [&] {
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
               .extra_bits = bay_bits,
               .seen = credits.data()});
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
    if (masked(peer)) continue;
    auto const at = static_cast<std::size_t>(peer);
    int const bay = bay_of_credit(credits[at], use.frame);
    if (bay >= most_bays(*slots_.heap(), slots_.at(), peer)) fail_broken("low_latency/credit", peer, "bay", bay);
    of(use).bays[at] = bay;
  }
}

void LowLatency::raise_arrived(FrameUse const& use) {
  Frame const& frame = of(use);
  bool const by_rank = frame.rows.layout == SlotLayout::rank_major;
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
    if (masked(peer)) continue;
    FrameFlag& flag = slots_.arrived(peer, use.frame)[slots_.rank()];
    store_word(flag.rows, by_rank ? static_cast<std::uint64_t>(frame.routes.count(peer)) : 0);
    raise(peer, flag, {use.epoch, frame.digest});
  }
}

}  // namespace switchyard::cpu
