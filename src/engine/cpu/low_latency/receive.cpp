// The receive half of a low-latency dispatch: waits for the sources, then counts what they have sent.
#include <algorithm>
#include <cstring>

#include "base/trace.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"

namespace switchyard::cpu {

void LowLatency::receive_dispatch(FrameUse const& use, ReceiveCounters const& counters) {
  run_half("low_latency/receive", [&] { receive(use, counters); });
}

void LowLatency::receive(FrameUse const& use, ReceiveCounters const& counters) {
  TraceScope const span("low_latency/receive", slots_.rank());
  FlagWait const wait{.flags = slots_.arrived(slots_.rank(), use.frame),
                      .frame = use.frame,
                      .epoch = use.epoch,
                      .phase = "low_latency/receive",
                      .wait_ns = counters.wait_ns_per_source};
  await_flags(wait);
  Frame& frame = of(use);
  mask_refusing(wait);  // first: who has masked this rank may take no rows of it, and the end of the dispatch waits
  if (over_nodes_) over_nodes_->end_dispatch(use);
  check_digests(wait, frame.digest, "layout, dtype, widths, cast and weights");
  if (frame.rows.layout == SlotLayout::expert_major) {
    take_expert_rows(use, counters.received_per_expert);
  } else {
    take_source_rows(use, counters.received_per_expert);
  }
  if (counters.counts.given()) {
    std::byte const* const counts = slots_.bay(slots_.rank(), use.stay.bay) + slots_.at().counts;
    std::memcpy(counters.counts.data, counts,
                static_cast<std::size_t>(counters.counts.size(0)) * sizeof(std::int32_t));
  }
  frame.received = true;
  credits_->note_received(use);
}

// Sources of other nodes say so in the place of the digest: who serves them raises the flag for them.
void LowLatency::mask_refusing(FlagWait const& wait) {
  for (int peer = 0; peer < slots_.num_ranks(); ++peer)
    if (!masked(peer) && !slots_.is_local(peer) && load_word(wait.flags[peer].digest) == digest_refused)
      mask(peer, true);
}

void LowLatency::take_expert_rows(FrameUse const& use, TensorView const& per_expert) {
  int const rank = slots_.rank();
  auto* const counts = reinterpret_cast<std::int32_t*>(slots_.bay(rank, use.stay.bay) + slots_.at().counts);
  std::int64_t* const ranges = slots_.ranges(rank, use.stay.bay);
  for (int local = 0; local < slots_.local_experts(); ++local) {
    // Relaxed: pairs with the fetch_add in SendRows::claim(), which comes before the source's flag, and this rank
    // has acquired the flags.
    std::int64_t const claimed = slots_.claim(rank, use.frame, local).load(std::memory_order_relaxed);
    counts[local] = static_cast<std::int32_t>(std::min(claimed, slots_.expert_slots()));
    std::int64_t received = 0;  // unlike counts, without what masked sources have claimed
    for (int source = 0; source < slots_.num_ranks(); ++source) {
      std::int64_t& range = ranges[local * slots_.num_ranks() + source];
      if (masked(source)) range = 0;
      SlotRange const rows = SlotRange::unpack(range);
      if (!rows.within(slots_.expert_slots())) fail_broken("low_latency/receive", source, "range", range);
      received += rows.count;
    }
    if (per_expert.given())
      static_cast<std::int32_t*>(per_expert.data)[local] += static_cast<std::int32_t>(received);
  }
}

void LowLatency::take_source_rows(FrameUse const& use, TensorView const& per_expert) {
  int const rank = slots_.rank();
  auto* const counts = reinterpret_cast<std::int32_t*>(slots_.bay(rank, use.stay.bay) + slots_.at().counts);
  FrameFlag* const flags = slots_.arrived(rank, use.frame);
  std::int64_t const most = slots_.sizes().max_tokens;
  for (int source = 0; source < slots_.num_ranks(); ++source) {
    std::uint64_t const rows = masked(source) ? 0 : load_word(flags[source].rows);
    if (rows > static_cast<std::uint64_t>(most)) {
      fail_broken("low_latency/receive", source, "rows", static_cast<std::int64_t>(rows));
    }
    counts[source] = static_cast<std::int32_t>(rows);
    if (per_expert.given()) count_ids(use, {.begin = source * most, .count = counts[source]}, per_expert);
  }
}

// Counts a row once for an expert that it has in several slots.
void LowLatency::count_ids(FrameUse const& use, SlotRange const& rows, TensorView const& per_expert) {
  auto const top_k = static_cast<std::size_t>(slots_.sizes().top_k);
  auto const* const ids =
      reinterpret_cast<std::int32_t const*>(slots_.bay(slots_.rank(), use.stay.bay) + slots_.at().topk_idx);
  auto* const counts = static_cast<std::int32_t*>(per_expert.data);
  for (std::int64_t row = rows.begin; row < rows.begin + rows.count; ++row) {
    std::span const slots(ids + static_cast<std::size_t>(row) * top_k, top_k);
    for (std::size_t slot = 0; slot < top_k; ++slot) {
      std::int32_t const local = slots[slot];  // read once, since a peer may write it
      if (local < 0 || local >= slots_.local_experts()) continue;
      auto const earlier = slots.first(slot);
      if (std::ranges::find(earlier, local) == earlier.end()) ++counts[local];
    }
  }
}

}  // namespace switchyard::cpu
