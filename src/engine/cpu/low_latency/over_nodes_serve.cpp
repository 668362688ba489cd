// What a rank does for a source of another node in a combine: sums for each token of the source what the experts of
// this node have made of it.
#include <algorithm>

#include "base/check.hpp"
#include "base/trace.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"
#include "layout/scale_out/combine_chunk.hpp"

namespace switchyard::cpu {

// Whether it is used: it waits for this rank's own combine, and for the source's rows.
bool OverNodes::take_asks(std::size_t source, Header const& header, Bytes chunk) {
  int const rank = rails_.served()[source].rank;
  LowLatency::Frame const& call = engine_.frames_[header.frame];
  FromSource& from = of(static_cast<int>(header.frame)).from[source];
  if (header.combine + std::uint64_t{1} > call.combines) return false;
  if (header.combine + std::uint64_t{1} < call.combines || call.combine_received) return true;
  bool const known = from.epoch == header.epoch && from.arrived;
  if (!known && !call.received) return false;
  if (!known || engine_.masked(rank)) return refuse_sums(source, header);
  if (header.digest != call.combine_digest) refuse_digest(rank, "low_latency/combine", "layout, dtype and coding");
  if (from.combine != header.combine) {
    from.combine = header.combine;
    from.weights.assign(header.stream, 0);
    from.weights_here = 0;
    from.asked = false;
    from.replied = false;
    from.refuses |= header.masked & everybody();
  }
  try {
    require(header.stream == 0 || header.stream == from.slots, "rank {}: weights: expected {}, seen {}", rank,
            from.slots, header.stream);
    scale_out::read_weights(chunk, header, from.weights);
  } catch (InvalidArgument const& error) {
    throw SystemError(error.what(), {.rank = slots_.rank(), .peer = rank, .phase = "low_latency/combine"});
  }
  from.weights_here += header.count;
  from.asked = from.weights_here >= header.stream;
  return true;
}

// The source will do without this node. It waits for nothing else from this rank. False: there is no room, so that
// it is to be said later.
bool OverNodes::refuse_sums(std::size_t source, Header const& header) {
  Header answer = header;
  answer.kind = Kind::sums;
  answer.masked = everybody();
  answer.bytes = sizeof(Header);
  answer.stream = answer.first = answer.count = 0;
  return rails_.send_if_room(rails_.served()[source].neighbour, [&](std::span<std::byte> memory) {
    scale_out::store(memory.data(), answer);
    return sizeof(Header);
  });
}

void OverNodes::serve() {
  for (int frame = 0; frame < static_cast<int>(frames_.size()); ++frame) {
    LowLatency::Frame const& call = engine_.frames_[static_cast<std::size_t>(frame)];
    if (call.combines == 0 || call.combine_received) continue;
    FrameUse const use{.frame = frame, .epoch = call.epoch};
    bool ready = false;
    for (std::size_t source = 0; source < of(frame).from.size(); ++source) {
      FromSource const& from = of(frame).from[source];
      if (from.epoch != call.epoch || !from.asked || from.replied || engine_.masked(rails_.served()[source].rank))
        continue;
      ready = ready || outputs_ready(frame, use);
      if (!ready) break;
      reply(frame, source);
    }
  }
}

// Whether all ranks of this node that are there have raised their flags for the frame's latest combine.
bool OverNodes::outputs_ready(int frame, FrameUse const& use) {
  FlagWait const wait = engine_.combine_wait(use, slots_.ready(slots_.rank(), frame), "");
  return std::ranges::all_of(slots_.local_ranks(), [&](int rank) {
    if (engine_.masked(rank)) return true;
    // Acquire: pairs with the release store in LowLatency::raise().
    return wait.is_up(epoch_of(wait.flags[rank]).load(std::memory_order_acquire));
  });
}

void OverNodes::reply(int frame, std::size_t source) {
  TraceScope const span("low_latency/serve", slots_.rank());
  FromSource& from = of(frame).from[source];
  LowLatency::Frame const& call = engine_.frames_[static_cast<std::size_t>(frame)];
  OutputSum sum(call.outputs, !from.weights.empty(), slots_.sizes().top_k);
  Header header = header_of(Kind::sums, {.frame = frame, .epoch = call.epoch});
  header.masked = everybody() & ~(from.credited & ~from.refuses & ~masked_on(slots_.node().node()));
  header.stream = from.counts.tokens;
  scale_out::CombineWriter writer(
      {.row_bytes = call.outputs.row_bytes(), .tokens = header.stream, .epoch = call.epoch});
  do {
    rails_.send(rails_.served()[source].neighbour, of(frame).sums_leave, [&](std::span<std::byte> memory) {
      std::size_t const bytes = writer.done() ? 0 : writer.begin(memory.subspan(sizeof(Header)));
      for (header.count = 0; auto const row = writer.next_row(); ++header.count) {
        gather(from, row->token, sum);
        sum.finish_for_the_way(row->x);
      }
      header.bytes = static_cast<std::uint32_t>(sizeof(Header) + bytes);
      scale_out::store(memory.data(), header);
      header.first += header.count;
      return static_cast<std::size_t>(header.bytes);
    });
  } while (!writer.done());
  from.replied = true;
}

void OverNodes::gather(FromSource const& from, std::size_t token, OutputSum& sum) const {
  std::size_t const row_bytes = sum.shape().row_bytes();
  sum.begin();
  for (std::size_t at = token == 0 ? 0 : from.rows_end[token - 1]; at < from.rows_end[token]; ++at) {
    Placed const& row = from.rows[at];
    int const local = slots_.local_of(row.rank);
    if ((from.refuses & mask_of(local)) != 0 || engine_.masked(row.rank)) continue;
    std::byte const* const outputs =
        slots_.bay(row.rank, from.bays[static_cast<std::size_t>(local)]) + slots_.at().outputs;
    sum.add(outputs + static_cast<std::size_t>(row.slot) * row_bytes,
            from.weights.empty() ? 1.0F : from.weights[row.weight]);
  }
}

}  // namespace switchyard::cpu
