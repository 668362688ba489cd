#include "engine/cuda/throughput/over_nodes/dispatch_work.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/trace.hpp"
#include "call/rows.hpp"
#include "engine/cuda/host/width.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

constexpr char const* moving = "dispatch/cross";
// Tokens whose rows for the own node go into a launch beside what crosses, so that no chunk waits long for its
// turn.
constexpr std::int64_t local_tokens_in_turn = 256;
// Rows go into lists much faster than chunks travel.
constexpr std::size_t moves_between_looks = 64;

}  // namespace

MoveLists::MoveLists(std::span<std::byte> memory)
    : rows(eighths_of<MoveRow>(memory, 0, 1)),
      places(eighths_of<MoveTo>(memory, 1, 4)),
      slots(eighths_of<MoveSlot>(memory, 5, 3)) {}

// A token has a row for each of its slots, or for each rank of the node, at most.
bool MoveLists::has_room() const noexcept {
  return rows.left() > 0 && places.left() >= max_top_k && slots.left() >= max_top_k;
}

DispatchWork::DispatchWork(PlaceTask const& task, TravellingRows const& rows, Batches& batches)
    : task_(task),
      rows_(rows),
      batches_(batches),
      crossing_(*task.crossing),
      args_(task.call.args),
      routing_(*task.call.routing),
      shape_(task.call.shape),
      streams_(task),
      reader_(streams_.terms(), crossing_.own_experts()),
      incoming_(incoming_tokens(task, streams_)) {
  for (scale_out::Way const& way : crossing_.ways())
    outgoing_.push_back({way, scale_out::ChunkWriter(streams_.to(way.node))});
}

// First what has ended, so that the network goes on, then what has come and what is to leave. While a launch is
// under way the wait is for the GPU; only without one it is for a neighbour.
void DispatchWork::run() {
  TraceScope const span(moving, task_.rank);
  pad();
  Crossing::Patience waiting = Crossing::patience(task_.signals);
  for (auto neighbour = awaited(); neighbour; neighbour = awaited()) {
    crossing_.poll(task_.signals);
    bool const ended = batches_.turn(task_.signals);
    bool const launched = !crossing_.refused() && launch_some();
    if (ended || launched) {
      waiting = Crossing::patience(task_.signals);
    } else if (!batches_.idle()) {
      std::this_thread::yield();
    } else {
      crossing_.rest(task_.signals, *neighbour, moving, waiting);
    }
  }
  auto const poll = [this] { crossing_.poll(task_.signals); };
  while (!crossing_.refused() && next_local_ < routing_.num_tokens) {
    bool const launched = launch_some();
    poll();
    if (!batches_.turn(task_.signals) && !launched) std::this_thread::yield();
  }
  batches_.drain(task_.signals, poll);
  if (crossing_.refused()) return end_refused();
  keep_places();
}

// A slot that was taken goes its way: the other end gives back what comes of a call that is refused.
void DispatchWork::end_refused() {
  for (Outgoing& each : outgoing_)
    if (each.room) crossing_.port().send(*each.room, each.bytes);
  if (placing_) crossing_.port().give_back(placing_->chunk);
}

std::optional<int> DispatchWork::awaited() {
  auto const undecided = crossing_.first_undecided(task_.signals, moving);
  if (crossing_.refused()) return undecided;  // by whom is known when all have said it
  for (IncomingTokens const& each : incoming_)
    if (!each.all_here()) return each.from.neighbour;
  for (Outgoing const& each : outgoing_)
    if (each.room || !each.writer.done()) return crossing_.keeps_room_from(each.way.neighbour);
  return undecided;
}

bool DispatchWork::launch_some() {
  if (!batches_.has_room()) return false;
  MoveLists lists(batches_.room());
  Steps steps;
  place_chunks(lists, steps);
  fill_chunks(lists, steps);
  add_local(lists, local_tokens_in_turn);
  if (lists.rows.size() == 0 && steps.empty()) return false;
  launch(lists, std::move(steps));
  return true;
}

void DispatchWork::launch(MoveLists const& lists, Steps steps) {
  bool const beside = args_.topk_idx.given();
  MoveArgs const args{
      .rows = lists.rows.data(),
      .places = lists.places.data(),
      .slots = lists.slots.data(),
      .count = lists.rows.size(),
      .row_bytes = static_cast<std::uint32_t>(shape_.row_bytes),
      .scale_words = static_cast<std::uint32_t>(shape_.scale_bytes / sizeof(float)),
      .scale_stride = rows_.scales.given() ? rows_.scales.stride(1) : 1,
      .row_slots = !beside      ? 0
                   : expanded() ? 1
                                : static_cast<std::uint32_t>(routing_.top_k),
      .id_bytes = beside && !expanded() && shape_.topk_bytes > 0
                      ? static_cast<std::uint32_t>(size_of(args_.topk_idx.dtype))
                      : 0,
      .width = static_cast<std::uint32_t>(width_of(rows_.x.data, row_stride_of(rows_.x), shape_.row_bytes))};
  if (args.count > 0)
    check_cuda(launch_moves(args, task_.call.workers, batches_.stream()), "launching the kernel that moves rows");
  batches_.launched(std::move(steps));
}

void DispatchWork::pad() {
  std::vector<PadRange> ranges;
  Placement const& placement = routing_.placement;
  std::int64_t end = 0;
  for (std::size_t expert = 0; expanded() && expert < placement.tokens_per_expert.size(); ++expert) {
    std::int64_t const next = end + placement.tokens_per_expert[expert];
    std::int64_t const real = end + placement.real_tokens_per_expert[expert];
    if (real < next) ranges.push_back({real, next});
    end = next;
  }
  if (placement.rows < shape_.rows) ranges.push_back({placement.rows, shape_.rows});
  Destination const& own = task_.destinations[static_cast<std::size_t>(task_.rank)];
  std::span<PadRange const> left = ranges;
  while (!left.empty()) {
    auto const memory = batches_.room();
    std::size_t const count = std::min(left.size(), memory.size() / sizeof(PadRange));
    std::ranges::copy(left.first(count), reinterpret_cast<PadRange*>(memory.data()));
    left = left.subspan(count);
    PadArgs const args{.ranges = reinterpret_cast<PadRange const*>(memory.data()),
                       .count = static_cast<std::uint32_t>(count),
                       .x = args_.zero_padding ? own.x : nullptr,
                       .scales = own.scales,
                       .ids = own.topk_idx,
                       .weights = own.topk_weights,
                       .token = reinterpret_cast<std::int32_t*>(own.source_token),
                       .row_bytes = static_cast<std::uint32_t>(shape_.row_bytes),
                       .scale_bytes = static_cast<std::uint32_t>(shape_.scale_bytes),
                       .topk_bytes = static_cast<std::uint32_t>(shape_.topk_bytes),
                       .weight_bytes = static_cast<std::uint32_t>(shape_.weight_bytes)};
    check_cuda(launch_padding(args, task_.call.workers, batches_.stream()), "launching the kernel that pads");
    batches_.launched({});
    while (!batches_.has_room()) {
      crossing_.poll(task_.signals);
      if (!batches_.turn(task_.signals)) std::this_thread::yield();
    }
  }
}

void DispatchWork::add_local(MoveLists& lists, std::int64_t tokens) {
  std::int64_t const end = std::min(next_local_ + tokens, routing_.num_tokens);
  for (; next_local_ < end && lists.has_room(); ++next_local_) {
    add_token(lists, next_local_);
    look(static_cast<std::size_t>(next_local_));
  }
}

MoveTo DispatchWork::place_at(Destination const& to, std::int64_t row) const {
  auto const at = static_cast<std::size_t>(row);
  bool const beside = args_.topk_idx.given();
  MoveTo place{};
  place.x = to.x + at * shape_.row_bytes;
  place.scales = to.scales + at * shape_.scale_bytes;
  if (beside && !expanded() && shape_.topk_bytes > 0) place.ids = to.topk_idx + at * shape_.topk_bytes;
  if (beside && shape_.weight_bytes > 0)
    place.weights = reinterpret_cast<float*>(to.topk_weights + at * shape_.weight_bytes);
  place.token = reinterpret_cast<std::int32_t*>(to.source_token) + row;
  return place;
}

void DispatchWork::add_token(MoveLists& lists, std::int64_t token) {
  MoveRow row{.x = row_at(rows_.x, token),
              .scales = row_or_none(rows_.scales, token),
              .first_place = lists.places.size(),
              .places = 0,
              .token = static_cast<std::int32_t>(token),
              .from_caller = 1};
  for (Route const& route : routing_.table.of(token)) {
    Destination const& to = task_.destinations[static_cast<std::size_t>(route.rank)];
    if (to.x == nullptr) continue;
    MoveTo place = place_at(to, route.row);
    add_slots(lists, place, route, token);
    lists.places.add(place);
    ++row.places;
  }
  if (row.places > 0) lists.rows.add(row);
}

// What RowWriter::store_row() of the CPU engine writes beside a row.
void DispatchWork::add_slots(MoveLists& lists, MoveTo& to, Route const& route, std::int64_t token) const {
  if (!args_.topk_idx.given()) return;
  to.first_slot = lists.slots.size();
  bool const weights = shape_.weight_bytes > 0;
  if (expanded()) {
    if (weights) lists.slots.add({.slot = 0, .id = -1, .weight = weight_at(args_.topk_weights, token, route.slot)});
  } else {
    Destination const& there = task_.destinations[static_cast<std::size_t>(route.rank)];
    for (std::int64_t slot = 0; slot < routing_.top_k; ++slot) {
      std::int64_t const local = topk_at(args_.topk_idx, token, slot) - there.first_expert;
      if (local < 0 || local >= there.local_experts) continue;
      lists.slots.add({.slot = static_cast<std::int32_t>(slot),
                       .id = static_cast<std::int32_t>(local),
                       .weight = weights ? weight_at(args_.topk_weights, token, slot) : 0.0F});
    }
  }
  to.slots = lists.slots.size() - to.first_slot;
}

void DispatchWork::fill_chunks(MoveLists& lists, Steps& steps) {
  while (lists.has_room() &&
         in_turn(outgoing_, next_out_, [&](Outgoing& outgoing) { return fill(outgoing, lists, steps); }))
    continue;
}

// Returns whether it did anything. A chunk of many small rows may take several launches; it is sent behind the
// last.
bool DispatchWork::fill(Outgoing& outgoing, MoveLists& lists, Steps& steps) {
  if (!outgoing.room) {
    if (outgoing.writer.done()) return false;
    outgoing.room = crossing_.port().room_for(outgoing.way.neighbour);
    if (!outgoing.room) return false;
    outgoing.bytes = outgoing.writer.begin(outgoing.room->memory);
  }
  std::size_t rows = 0;
  while (lists.has_room()) {
    auto const to = outgoing.writer.next_row();
    if (!to) {
      steps.emplace_back(
          [this, room = *outgoing.room, bytes = outgoing.bytes] { crossing_.port().send(room, bytes); });
      outgoing.room.reset();
      return true;
    }
    MoveTo place{};
    place.x = to->x;
    place.scales = to->scales;
    lists.rows.add({.x = row_at(rows_.x, to->token),
                    .scales = row_or_none(rows_.scales, to->token),
                    .first_place = lists.places.size(),
                    .places = 1,
                    .token = to->token,
                    .from_caller = 1});
    lists.places.add(place);
    look(++rows);
  }
  return true;
}

void DispatchWork::place_chunks(MoveLists& lists, Steps& steps) {
  while (lists.has_room() && (placing_ || next_chunk())) {
    while (placing_->next < reader_.size() && lists.has_room()) place_token(lists);
    if (placing_->next == reader_.size()) end_chunk(steps);
  }
}

bool DispatchWork::next_chunk() {
  return in_turn(incoming_, next_in_, [&](IncomingTokens& from) {
    auto const chunk = crossing_.port().next_chunk(from.from.neighbour);
    if (!chunk) return false;
    placing_ = Placing{.from = &from, .chunk = *chunk};
    read_chunk();
    return true;
  });
}

void DispatchWork::read_chunk() {
  try {
    switchyard::read_chunk(reader_, placing_->chunk.memory, *placing_->from, task_.epoch);
  } catch (InvalidArgument const& error) {
    fail(error.what());
  }
}

void DispatchWork::place_token(MoveLists& lists) {
  IncomingTokens const& from = *placing_->from;
  std::size_t const i = placing_->next++;
  scale_out::ChunkToken const token = reader_.token(i);
  if (!cached()) add_placed(from, token, routing_.layout, placing_->placed);
  auto const rows =
      cached() ? from.known.placed.rows_of(reader_.first() + i) : std::as_const(placing_->placed).rows_of(i);
  lists.rows.add({.x = token.x,
                  .scales = token.scales,
                  .first_place = lists.places.size(),
                  .places = static_cast<std::uint32_t>(rows.size()),
                  .token = token.token,
                  .from_caller = 0});
  for (scale_out::PlacedRow const& row : rows) {
    int const rank = crossing_.node().rank_of(row.local_rank);
    MoveTo place = place_at(task_.destinations[static_cast<std::size_t>(rank)], row.row);
    place.first_slot = lists.slots.size();
    for (scale_out::ChunkSlot const& slot : token.slots) {
      if (expanded() ? slot.slot != row.slot : slot.local_rank != row.local_rank) continue;
      lists.slots.add(
          {.slot = expanded() ? 0 : slot.slot, .id = expanded() ? -1 : slot.local_expert, .weight = slot.weight});
    }
    place.slots = lists.slots.size() - place.first_slot;
    lists.places.add(place);
  }
  look(i);
}

void DispatchWork::end_chunk(Steps& steps) {
  IncomingTokens& from = *placing_->from;
  if (!cached()) from.pieces.push_back({reader_.first(), std::move(placing_->placed)});
  from.tokens += reader_.size();
  steps.emplace_back([this, chunk = placing_->chunk] { crossing_.port().give_back(chunk); });
  placing_.reset();
}

void DispatchWork::look(std::size_t rows) {
  if ((rows + 1) % moves_between_looks == 0) crossing_.poll(task_.signals);
}

void DispatchWork::keep_places() {
  if (cached()) return;
  try {
    switchyard::keep_places(incoming_, *task_.placed);
  } catch (InvalidArgument const& error) {
    fail(error.what());
  }
}

void DispatchWork::fail(std::string const& text) {
  task_.signals.fail(SystemError(text, {.rank = task_.rank, .phase = moving}));
}

}  // namespace switchyard::cuda
