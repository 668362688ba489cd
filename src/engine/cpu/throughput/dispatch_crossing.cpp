#include "engine/cpu/throughput/dispatch_crossing.hpp"

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/trace.hpp"
#include "engine/cpu/simd/kernels.hpp"

namespace switchyard::cpu {

namespace {

constexpr char const* phase = "dispatch/cross";

}  // namespace

DispatchCrossing::DispatchCrossing(PlaceTask const& task)
    : task_(task),
      crossing_(*task.crossing),
      args_(task.call.args),
      routing_(*task.call.routing),
      shape_(task.call.shape),
      rows_between_looks_(rows_between_looks(shape_.row_bytes)),
      streams_(task),
      reader_(streams_.terms(), crossing_.own_experts()),
      loader_(row_source(args_)),
      incoming_(incoming_tokens(task, streams_)) {
  for (scale_out::Way const& way : crossing_.ways())
    outgoing_.push_back({way, scale_out::ChunkWriter(streams_.to(way.node))});
}

// The order of work decides about the rate: first what has completed, so that the network goes on; then what has
// arrived, so that its slots are free for more; then what is to leave; and rows of the own node when there is
// nothing else (design: order measured on tcp with two cores). While it writes those, a rank that shares its core
// gives it away now and then: others may not even have begun to send.
void DispatchCrossing::run(LocalRows& local) {
  TraceScope const span(phase, crossing_.rank());
  Crossing::Patience waiting = Crossing::patience(task_.signals);
  for (auto neighbour = awaited(); neighbour; neighbour = awaited()) {
    poll();
    bool const refused = crossing_.refused().has_value();
    bool const placed = !refused && place_one();
    bool const sent = !refused && send_one(local);
    bool const wrote = !placed && !sent && local.write_some(loader_);
    if (wrote && task_.signals.cores_are_shared()) std::this_thread::yield();
    if (placed || sent || wrote) {
      waiting = Crossing::patience(task_.signals);
    } else {
      crossing_.rest(task_.signals, *neighbour, phase, waiting);
    }
  }
  while (local.write_some(loader_)) continue;
  store_fence();  // the release of the flags does not order non-temporal stores
  if (!crossing_.refused()) keep_places();
}

std::optional<int> DispatchCrossing::awaited() {
  auto const undecided = crossing_.first_undecided(task_.signals, phase);
  if (crossing_.refused()) return undecided;  // by whom is known when all have said it
  for (IncomingTokens const& each : incoming_)
    if (!each.all_here()) return each.from.neighbour;
  for (Outgoing const& each : outgoing_)
    if (!each.writer.done()) return crossing_.keeps_room_from(each.way.neighbour);
  return undecided;
}

bool DispatchCrossing::send_one(LocalRows& local) {
  return in_turn(outgoing_, next_out_, [&](Outgoing& outgoing) {
    if (outgoing.writer.done()) return false;
    auto const room = crossing_.port().room_for(outgoing.way.neighbour);
    if (room) fill(outgoing, *room, local);
    return room.has_value();
  });
}

void DispatchCrossing::fill(Outgoing& outgoing, scale_out::Port::Room const& room, LocalRows& local) {
  std::size_t const bytes = outgoing.writer.begin(room.memory);
  std::size_t rows = 0;
  while (auto const to = outgoing.writer.next_row()) {
    LoadedRow const row = loader_.load(to->token);
    std::memcpy(to->x, row.x, shape_.row_bytes);  // the transport reads it next: it should stay in the cache
    if (row.scales != nullptr) std::memcpy(to->scales, row.scales, shape_.scale_bytes);
    local.write(to->token, row);
    if (++rows % rows_between_looks_ == 0) poll();
  }
  crossing_.port().send(room, bytes);
}

bool DispatchCrossing::place_one() {
  return in_turn(incoming_, next_in_, [&](IncomingTokens& from) {
    auto const chunk = crossing_.port().next_chunk(from.from.neighbour);
    if (chunk) place(from, *chunk);
    return chunk.has_value();
  });
}

void DispatchCrossing::place(IncomingTokens& from, scale_out::Port::Chunk const& chunk) {
  try {
    read_chunk(reader_, chunk.memory, from, task_.epoch);
  } catch (InvalidArgument const& error) {
    fail(error.what());
  }
  if (cached()) {
    place_again(from);
  } else {
    place_new(from);
  }
  from.tokens += reader_.size();
  crossing_.port().give_back(chunk);
}

void DispatchCrossing::place_new(IncomingTokens& from) {
  scale_out::PlacedTokens placed;
  placed.reserve(reader_.size(), reader_.num_rows(), reader_.num_slots());
  for (std::size_t i = 0; i < reader_.size(); ++i) {
    scale_out::ChunkToken const token = reader_.token(i);
    add_placed(from, token, routing_.layout, placed);
    place_token(token, placed.rows_of(i));
    if ((i + 1) % rows_between_looks_ == 0) poll();
  }
  from.pieces.push_back({reader_.first(), std::move(placed)});
}

void DispatchCrossing::place_again(IncomingTokens const& from) {
  for (std::size_t i = 0; i < reader_.size(); ++i) {
    place_token(reader_.token(i), from.known.placed.rows_of(reader_.first() + i));
    if ((i + 1) % rows_between_looks_ == 0) poll();
  }
}

void DispatchCrossing::place_token(scale_out::ChunkToken const& token, std::span<scale_out::PlacedRow const> rows) {
  for (scale_out::PlacedRow const& row : rows) {
    Destination const& to = task_.destinations[static_cast<std::size_t>(crossing_.node().rank_of(row.local_rank))];
    auto const at = static_cast<std::size_t>(row.row);
    stream_copy(to.x + at * shape_.row_bytes, token.x, shape_.row_bytes);
    if (shape_.scale_bytes > 0) std::memcpy(to.scales + at * shape_.scale_bytes, token.scales, shape_.scale_bytes);
    store_at<std::int32_t>(to.source_token, row.row, token.token);
    if (args_.topk_idx.given()) store_ids(to, row, token);
  }
}

// What RowWriter::store_row() writes for a token of this node.
void DispatchCrossing::store_ids(Destination const& to, scale_out::PlacedRow const& row,
                                 scale_out::ChunkToken const& token) const {
  bool const weights = shape_.weight_bytes > 0;
  if (routing_.layout == OutputLayout::expanded) {
    for (scale_out::ChunkSlot const& slot : token.slots)
      if (weights && slot.slot == row.slot) store_at<float>(to.topk_weights, row.row, slot.weight);
    return;
  }
  auto const at = static_cast<std::size_t>(row.row);
  std::memset(to.topk_idx + at * shape_.topk_bytes, 0xff, shape_.topk_bytes);  // -1 in either width
  if (weights) std::memset(to.topk_weights + at * shape_.weight_bytes, 0, shape_.weight_bytes);
  for (scale_out::ChunkSlot const& slot : token.slots) {
    if (slot.local_rank != row.local_rank) continue;
    std::int64_t const place = row.row * routing_.top_k + slot.slot;
    if (args_.topk_idx.dtype == DType::i64) {
      store_at<std::int64_t>(to.topk_idx, place, slot.local_expert);
    } else {
      store_at<std::int32_t>(to.topk_idx, place, slot.local_expert);
    }
    if (weights) store_at<float>(to.topk_weights, place, slot.weight);
  }
}

void DispatchCrossing::keep_places() {
  if (cached()) return;
  try {
    switchyard::keep_places(incoming_, *task_.placed);
  } catch (InvalidArgument const& error) {
    fail(error.what());
  }
}

void DispatchCrossing::fail(std::string const& text) {
  task_.signals.fail(SystemError(text, {.rank = crossing_.rank(), .phase = phase}));
}

}  // namespace switchyard::cpu
