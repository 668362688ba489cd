// What a rank does for a source of another node in a dispatch: what the source would do if it were of this node.
#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "base/check.hpp"
#include "call/bays.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"

namespace switchyard::cpu {

namespace {

constexpr char const* place_phase = "low_latency/place";

}  // namespace

// A chunk waits until the counts of the first one are there, since these say how many rows are to be claimed, and
// until the receivers have given their frames back.
bool OverNodes::take_rows(std::size_t source, Header const& header, Bytes chunk) {
  int const rank = rails_.served()[source].rank;
  // This rank's own half ends when it has placed the rows of all sources but masked ones. What comes from such a
  // one later is too late, also when it is not masked any more.
  if (engine_.masked(rank) || engine_.frames_[header.frame].received) return true;
  FromSource& from = of(static_cast<int>(header.frame)).from[source];
  if (from.epoch != header.epoch) from = FromSource{.epoch = header.epoch};
  if (from.arrived) return true;
  try {
    if (!from.counted && header.first == 0) read_counts(source, from, header, chunk);
    if (!from.counted || !take_credits(source, from, header)) return false;
    if (!from.claimed) claim(source, from, static_cast<int>(header.frame));
    if (header.count > 0) {
      std::size_t const counts = header.first == 0 ? scale_out::notify_bytes(own_experts()) : 0;
      std::size_t const at = std::min(scale_out::slot_rows_at(counts), chunk.size());
      place(source, from, header, chunk.subspan(at));
    }
    if (from.placed == from.counts.tokens) raise_arrived(source, from, header);
  } catch (InvalidArgument const& error) {
    if (header.digest != engine_.frames_[header.frame].digest) throw;
    throw SystemError(error.what(), {.rank = slots_.rank(), .peer = rank, .phase = place_phase});
  }
  return true;
}

// A chunk without counts says that the source sends this node nothing.
void OverNodes::read_counts(std::size_t source, FromSource& from, Header const& header, Bytes chunk) {
  int const rank = rails_.served()[source].rank;
  from.refuses = header.masked & everybody();
  from.bays.assign(slots_.local_ranks().size(), 0);
  from.counted = true;
  if (chunk.size() == sizeof(Header)) {
    from.refuses = everybody();
    return;
  }
  if (header.digest != engine_.frames_[header.frame].digest)
    refuse_digest(rank, "low_latency/receive", "layout, dtype, widths, cast and weights");
  std::size_t const bytes = scale_out::notify_bytes(own_experts());
  require(chunk.size() >= sizeof(Header) + bytes, "rank {}: chunk: expected counts of {} bytes, seen {}", rank,
          bytes, chunk.size() - sizeof(Header));
  from.counts = scale_out::read_notify(chunk.subspan(sizeof(Header), bytes),
                                       {.source = rank,
                                        .epoch = header.epoch,
                                        .top_k = slots_.sizes().top_k,
                                        .max_tokens = slots_.sizes().max_tokens},
                                       own_experts())
                    .counts;
  require(from.counts.tokens == header.stream, "rank {}: chunk: tokens: expected {} as in the counts, seen {}",
          rank, from.counts.tokens, header.stream);
  // Only a layout by expert has a row for each slot.
  bool const by_expert = of(static_cast<int>(header.frame)).terms.layout == OutputLayout::expanded;
  for (std::uint32_t const rows : from.counts.slots)
    require(!by_expert || rows <= slots_.sizes().max_tokens,
            "rank {}: chunk: rows of an expert: expected 0..{}, seen {}", rank, slots_.sizes().max_tokens, rows);
}

// Whether every receiver has given its frame back to the source, or does without it.
bool OverNodes::take_credits(std::size_t source, FromSource& from, Header const& header) {
  int const frame = static_cast<int>(header.frame);
  FrameFlag* const words = slots_.served_credits(slots_.rank(), rails_.served()[source].rank, frame);
  bool all = true;
  for (std::size_t local = 0; local < slots_.local_ranks().size(); ++local) {
    LocalRankMask const bit = mask_of(static_cast<int>(local));
    if (((from.refused | from.credited) & bit) != 0) continue;
    // Acquire: pairs with the release store in Credits::store_credit().
    std::uint64_t const word = epoch_of(words[local]).load(std::memory_order_acquire);
    int const receiver = rank_of(static_cast<int>(local));
    if (word == credit_revoked || engine_.masked(receiver)) {
      from.refused |= bit;
    } else if (epoch_of_credit(word) != header.epoch - 1) {
      all = false;
    } else {
      int const bay = bay_of_credit(word, frame);
      int const bays = most_bays(*slots_.heap(), slots_.at(), static_cast<int>(local));
      if (bay >= bays)
        throw SystemError(fmt::format("rank {}: bay: expected 0..{}, seen {}", receiver, bays - 1, bay));
      from.bays[local] = bay;
      from.credited |= bit;
    }
  }
  return all;
}

// As SendRows::claim(). Nothing is sent to a rank that the source masks.
void OverNodes::claim(std::size_t source, FromSource& from, int frame) {
  from.claimed = true;
  if (of(frame).terms.layout != OutputLayout::expanded) return;
  from.begins.assign(static_cast<std::size_t>(own_experts().count()), 0);
  if (from.counts.slots.empty()) return;
  int const rank = rails_.served()[source].rank;
  for (std::size_t local = 0; local < slots_.local_ranks().size(); ++local) {
    if ((from.credited & ~from.refuses & mask_of(static_cast<int>(local))) == 0) continue;
    int const receiver = rank_of(static_cast<int>(local));
    std::int64_t* const ranges = slots_.ranges(receiver, from.bays[local]);
    for (int expert = 0; expert < slots_.experts().count(receiver); ++expert) {
      int const of_node = own_experts().first(static_cast<int>(local)) + expert;
      auto const number = static_cast<std::size_t>(of_node);
      std::uint32_t const count = from.counts.slots[number];
      SlotRange range{.count = count};
      // Relaxed: as in SendRows::claim().
      if (count > 0)
        range.begin = slots_.claim(receiver, frame, expert).fetch_add(count, std::memory_order_relaxed);
      if (!range.within(slots_.expert_slots()))
        throw SystemError(fmt::format("rank {}: what rank {} wrote is broken: claim of an expert's rows at {}",
                                      slots_.rank(), receiver, range.begin),
                          {.rank = slots_.rank(), .peer = receiver, .phase = place_phase});
      from.begins[number] = range.begin;
      ranges[expert * slots_.num_ranks() + rank] = count > 0 ? range.packed() : 0;
    }
  }
}

void OverNodes::place(std::size_t source, FromSource& from, Header const& header, Bytes tokens) {
  OfFrame& frame = of(static_cast<int>(header.frame));
  int const rank = rails_.served()[source].rank;
  frame.reader->read(tokens, {.rank = rank, .epoch = header.epoch, .counts = from.counts});
  scale_out::ChunkReader const& reader = *frame.reader;
  require(reader.first() == header.first && reader.size() == header.count &&
              reader.size() <= from.counts.tokens - from.placed,
          "rank {}: chunk: expected {} tokens from {} on, seen {} from {} on", rank, header.count, header.first,
          reader.size(), reader.first());
  Piece& piece = from.pieces.emplace_back(Piece{.first = header.first});
  for (std::size_t i = 0; i < reader.size(); ++i) place_token(rank, from, frame, reader.token(i), piece);
  from.placed += header.count;
  // The flag may be raised in a later half, which another thread may run: a fence orders the stores of its own.
  if (frame.streamed) store_fence();
}

void OverNodes::place_token(int source, FromSource const& from, OfFrame const& frame,
                            scale_out::ChunkToken const& token, Piece& piece) {
  bool const by_expert = frame.terms.layout == OutputLayout::expanded;
  SlotStore const store(slots_, frame.rows, frame.streamed);
  std::size_t const before = piece.rows.size();
  for (scale_out::ChunkRow const& row : token.rows) {
    if ((from.credited & ~from.refuses & mask_of(row.local_rank)) == 0) continue;
    int const receiver = rank_of(row.local_rank);
    SlotPlace to{.bay = slots_.bay(receiver, from.bays[static_cast<std::size_t>(row.local_rank)]),
                 .index = row.row};
    if (by_expert) {
      scale_out::ChunkSlot const& slot = token.slots[static_cast<std::size_t>(row.slot)];
      to.group = slot.local_expert;
      to.index += from.begins[static_cast<std::size_t>(slot.expert)];
    } else {
      to.index += source * slots_.sizes().max_tokens;
      store_ids(store, to, row.local_rank, token);
    }
    store.store(to, {.x = token.x, .scales = frame.terms.scale_bytes > 0 ? token.scales : nullptr}, token.token);
    piece.rows.push_back({.slot = to.group * slots_.expert_slots() + to.index,
                          .rank = receiver,
                          .weight = by_expert ? static_cast<std::size_t>(row.slot) : 0});
  }
  piece.rows_of.push_back(static_cast<std::uint8_t>(piece.rows.size() - before));
  piece.slots_of.push_back(static_cast<std::uint8_t>(token.slots.size()));
}

void OverNodes::store_ids(SlotStore const& store, SlotPlace const& to, int local,
                          scale_out::ChunkToken const& token) const {
  auto const top_k = static_cast<std::size_t>(slots_.sizes().top_k);
  std::int32_t* const ids = store.ids(to);
  float* const weights = store.weights(to);
  std::fill_n(ids, top_k, -1);
  std::fill_n(weights, top_k, 0.0F);
  for (scale_out::ChunkSlot const& slot : token.slots) {
    if (slot.local_rank != local) continue;
    ids[slot.slot] = slot.local_expert;
    weights[slot.slot] = slot.weight;
  }
}

// Chunks came in any order; the sums go back in that of the tokens.
void OverNodes::order_pieces(FromSource& from) const {
  std::ranges::sort(from.pieces, {}, &Piece::first);
  for (Piece const& piece : from.pieces) {
    require(piece.first == from.rows_end.size(), "first token of a chunk: expected {}, seen {}",
            from.rows_end.size(), piece.first);
    std::size_t next = 0;
    for (std::size_t token = 0; token < piece.rows_of.size(); ++token) {
      for (std::size_t row = 0; row < piece.rows_of[token]; ++row, ++next) {
        from.rows.push_back(piece.rows[next]);
        from.rows.back().weight += from.slots;
      }
      from.rows_end.push_back(from.rows.size());
      from.slots += piece.slots_of[token];
    }
  }
  from.pieces.clear();
}

void OverNodes::raise_arrived(std::size_t source, FromSource& from, Header const& header) {
  int const rank = rails_.served()[source].rank;
  order_pieces(from);
  store_fence();  // the release of the flags does not order non-temporal stores
  bool const by_rank = of(static_cast<int>(header.frame)).terms.layout == OutputLayout::flat;
  for (std::size_t local = 0; local < slots_.local_ranks().size(); ++local) {
    LocalRankMask const bit = mask_of(static_cast<int>(local));
    if ((from.credited & bit) == 0) continue;
    bool const refuses = (from.refuses & bit) != 0;
    int const receiver = rank_of(static_cast<int>(local));
    FrameFlag& flag = slots_.arrived(receiver, static_cast<int>(header.frame))[rank];
    store_word(flag.rows, by_rank && !refuses ? from.counts.rows[local] : 0);
    engine_.raise(receiver, flag, {header.epoch, refuses ? digest_refused : header.digest});
  }
  from.arrived = true;
}

// The rank of this node that has not given its frame back, where a source's rows wait for that; -1: nobody.
int OverNodes::holds_up(int source) const {
  auto const index = static_cast<std::size_t>(std::ranges::find(rails_.served(), source, &scale_out::Served::rank) -
                                              rails_.served().begin());
  for (std::size_t frame = 0; frame < frames_.size(); ++frame) {
    FromSource const& from = frames_[frame]->from[index];
    if (from.epoch != engine_.frames_[frame].epoch || !from.counted || from.arrived) continue;
    LocalRankMask const missing = everybody() & ~(from.credited | from.refused);
    if (missing != 0) return rank_of(std::countr_zero(missing));
  }
  return -1;
}

}  // namespace switchyard::cpu
