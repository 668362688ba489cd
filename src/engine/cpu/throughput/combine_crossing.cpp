#include "engine/cpu/throughput/combine_crossing.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/trace.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "layout/scale_out/dispatch_format.hpp"

namespace switchyard::cpu {

namespace {

constexpr char const* combine_phase = "combine/cross";

// What has come is summed before more is sent, while it is in the cache: more than a chunk holds of long rows.
constexpr std::size_t tokens_in_turn = 32;

float load_float(std::byte const* from) {
  float value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

CombineCrossing::CombineCrossing(PullTask const& task, RowSums& sums)
    : task_(task),
      sums_(sums),
      crossing_(*task.crossing),
      routing_(*task.call.args.handle.routing()),
      rows_between_looks_(rows_between_looks(row_bytes_of(task.call.args.x))),
      outgoing_(sums_back(task)),
      returned_(returned_rows(task)) {}

void CombineCrossing::run() {
  TraceScope const span(combine_phase, crossing_.rank());
  Crossing::Patience waiting = Crossing::patience(task_.signals);
  while (!done()) {
    poll();
    bool const took = take_chunks();
    bool const summed = sum_some();
    bool const sent = send_one();
    if (took || summed || sent) {
      waiting = Crossing::patience(task_.signals);
    } else {
      crossing_.rest(task_.signals, awaited(), combine_phase, waiting);
    }
  }
  store_fence();  // the caller may hand the result to any thread
}

bool CombineCrossing::done() const {
  return next_token_ == routing_.num_tokens &&
         std::ranges::all_of(outgoing_, [](SumsBack const& each) { return each.writer.done(); });
}

int CombineCrossing::awaited() const {
  for (ReturnedRows const& each : returned_)
    if (each.has(next_token_) && !each.row()) return each.way().neighbour;
  for (SumsBack const& each : outgoing_)
    if (!each.writer.done()) return crossing_.keeps_room_from(each.to.neighbour);
  return crossing_.ways().front().neighbour;
}

bool CombineCrossing::send_one() {
  return in_turn(outgoing_, next_out_, [&](SumsBack& outgoing) {
    if (outgoing.writer.done()) return false;
    auto const room = crossing_.port().room_for(outgoing.to.neighbour);
    if (room) fill(outgoing, *room);
    return room.has_value();
  });
}

void CombineCrossing::fill(SumsBack& outgoing, scale_out::Port::Room const& room) {
  std::size_t const bytes = outgoing.writer.begin(room.memory);
  std::size_t rows = 0;
  while (auto const to = outgoing.writer.next_row()) {
    sums_.begin();
    for (scale_out::PlacedRow const& row : outgoing.tokens.rows_of(to->token)) sums_.add(at(row));
    if (to->token + 1 < outgoing.tokens.size())
      for (scale_out::PlacedRow const& row : outgoing.tokens.rows_of(to->token + 1)) sums_.expect(at(row));
    sums_.finish_partial(to->x, task_.f32_partials);
    if (!to->weights.empty()) put_weights(outgoing.tokens, to->token, to->weights);
    if (++rows % rows_between_looks_ == 0) poll();
  }
  // As in CombineRun::run(): a rank of this node that gave up may have reused the rows that were just read.
  // Acquire: pairs with the release store in Signals::report().
  std::atomic_thread_fence(std::memory_order_acquire);
  task_.signals.check_usable();
  crossing_.port().send(room, bytes);
}

RowAt CombineCrossing::at(scale_out::PlacedRow const& row) const {
  return {.rank = crossing_.node().rank_of(row.local_rank), .row = row.row};
}

void CombineCrossing::put_weights(scale_out::PlacedTokens const& tokens, std::size_t token,
                                  std::span<std::byte> to) const {
  auto const rows = tokens.rows_of(token);
  auto const put = [&](std::size_t i, float value) {
    std::memcpy(to.data() + i * sizeof value, &value, sizeof value);
  };
  if (task_.call.args.weights_of_all_ranks) {
    for (std::size_t slot = 0; slot < to.size() / sizeof(float); ++slot) {
      float sum = 0;
      for (scale_out::PlacedRow const& row : rows) sum += sums_.weight_of(at(row), static_cast<std::int64_t>(slot));
      put(slot, sum);
    }
    return;
  }
  bool const expanded = routing_.layout == OutputLayout::expanded;
  auto const slots = tokens.slots_of(token);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    for (scale_out::PlacedRow const& row : rows) {
      bool const its_row = expanded ? row.slot == slots[i].slot : row.local_rank == slots[i].local_rank;
      if (its_row) put(i, sums_.weight_of(at(row), slots[i].slot));
    }
  }
}

bool CombineCrossing::take_chunks() {
  try {
    bool any = false;
    for (ReturnedRows& each : returned_) any = each.take(crossing_.port()) || any;
    return any;
  } catch (InvalidArgument const& error) {
    task_.signals.fail(SystemError(error.what(), {.rank = crossing_.rank(), .phase = combine_phase}));
  }
}

bool CombineCrossing::sum_some() {
  std::size_t tokens = 0;
  while (tokens < tokens_in_turn && next_token_ < routing_.num_tokens && sum_next())
    if (++tokens % rows_between_looks_ == 0) poll();
  return tokens > 0;
}

bool CombineCrossing::sum_next() {
  std::int64_t const token = next_token_;
  for (ReturnedRows const& each : returned_)
    if (each.has(token) && !each.row()) return false;
  CombineArgs const& args = task_.call.args;
  NodeSum sum{.all_f32 = task_.f32_partials,
              .bias0 = row_or_none(args.bias0, token),
              .bias1 = row_or_none(args.bias1, token),
              .out = const_cast<std::byte*>(row_at(task_.call.out, token)),
              .count = static_cast<std::size_t>(args.x.size(1)),
              .dtype = args.x.dtype};
  add_parts(token, sum);
  sum_nodes(sum);
  if (task_.call.out_weights.given()) take_weights(token);
  for (ReturnedRows& each : returned_)
    if (each.has(token))
      if (auto const used = each.pass()) crossing_.port().give_back(*used);
  ++next_token_;
  return true;
}

void CombineCrossing::add_parts(std::int64_t token, NodeSum& sum) {
  parts_.clear();
  std::size_t way = 0;
  for (int node = 0; node < crossing_.node().topology().num_nodes(); ++node) {
    if (node == crossing_.node().node()) {
      add_own(token, sum);
      continue;
    }
    ReturnedRows const& from = returned_[way++];
    if (from.has(token)) parts_.push_back(from.row()->x);
  }
  sum.parts = parts_;
}

void CombineCrossing::add_own(std::int64_t token, NodeSum& sum) {
  sums_.begin();
  auto const each_row = [&](std::int64_t of, auto const& take) {
    if (of == routing_.num_tokens) return;
    for (Route const& route : routing_.table.of(of))
      if (crossing_.node().has(route.rank)) take(RowAt{.rank = route.rank, .row = route.row});
  };
  each_row(token, [&](RowAt const& row) { sums_.add(row); });
  if (sums_.empty()) return;
  each_row(token + 1, [&](RowAt const& row) { sums_.expect(row); });
  sum.own = parts_.size();
  parts_.push_back(nullptr);  // the rows stand for it
  sums_.finish_within(sum);
}

// Of one rank each slot that is used comes from the rank of its expert. Of all ranks they are summed as rows are:
// by node, then nodes in their order.
void CombineCrossing::take_weights(std::int64_t token) {
  std::int64_t const top_k = task_.call.out_weights.size(1);
  float* const out = static_cast<float*>(task_.call.out_weights.data) + token * top_k;
  sums_.gather_weights(token, [this](int rank) { return crossing_.node().has(rank); });
  if (task_.call.args.weights_of_all_ranks) {
    own_weights_.assign(out, out + top_k);
    std::fill_n(out, top_k, 0.0F);
  }
  std::size_t way = 0;
  for (int node = 0; node < crossing_.node().topology().num_nodes(); ++node) {
    if (node == crossing_.node().node()) {
      for (std::size_t slot = 0; slot < own_weights_.size(); ++slot) out[slot] += own_weights_[slot];
      continue;
    }
    ReturnedRows const& from = returned_[way++];
    if (from.has(token)) add_weights(from, std::span(out, static_cast<std::size_t>(top_k)));
  }
}

void CombineCrossing::add_weights(ReturnedRows const& from, std::span<float> out) const {
  std::byte const* next = from.row()->weights.data();
  auto const take = [&next] {
    float const value = load_float(next);
    next += sizeof(float);
    return value;
  };
  if (task_.call.args.weights_of_all_ranks) {
    for (float& sum : out) sum += take();
  } else {
    scale_out::for_each_bit(from.slots(), [&](int slot) { out[static_cast<std::size_t>(slot)] = take(); });
  }
}

}  // namespace switchyard::cpu
