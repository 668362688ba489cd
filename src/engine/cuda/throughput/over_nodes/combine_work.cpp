#include "engine/cuda/throughput/over_nodes/combine_work.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <thread>
#include <utility>

#include "base/trace.hpp"
#include "call/rows.hpp"
#include "engine/cuda/host/width.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

constexpr char const* summing = "combine/cross";
// Tokens that are summed in a launch at most, so that no chunk waits long for its turn.
constexpr std::int64_t tokens_in_turn = 256;
constexpr std::size_t sums_between_looks = 64;

// What all rows of the call's dtype allow: those that are summed, biases, and results.
std::uint32_t width_of_sums(PullTask const& task) {
  CombineCall const& call = task.call;
  std::size_t const bytes = row_bytes_of(call.args.x);
  int width = width_of(call.out.data, row_stride_of(call.out), bytes);
  for (ConstTensorView const& bias : {call.args.bias0, call.args.bias1})
    if (bias.given()) width = std::min(width, width_of(bias.data, row_stride_of(bias), bytes));
  for (SourceRows const& from : task.sources) width = std::min(width, width_of(from.x, 0, bytes));
  return width == 16 ? 16 : 1;  // narrower ones go by element
}

// A row of each rank of the node, or of each slot; a part of each node, and biases. A number has as many terms at
// most.
bool fits_one_more(SumLists const& lists, CombineCall const& call, std::size_t other_nodes) {
  std::size_t const terms = static_cast<std::size_t>(max_top_k) + other_nodes + 2;
  std::size_t const slots = call.out_weights.given() ? static_cast<std::size_t>(call.out_weights.size(1)) : 0;
  return lists.rows.left() > 0 && lists.terms.left() >= terms && lists.numbers.left() >= slots &&
         lists.number_terms.left() >= slots * terms;
}

}  // namespace

bool fits_into_launch(CombineCall const& call, int num_nodes, std::span<std::byte> memory) {
  return fits_one_more(SumLists(memory), call, static_cast<std::size_t>(num_nodes) - 1);
}

SumLists::SumLists(std::span<std::byte> memory)
    : rows(eighths_of<SumRow>(memory, 0, 1)),
      terms(eighths_of<SumTerm>(memory, 1, 3)),
      numbers(eighths_of<SumNumber>(memory, 4, 2)),
      number_terms(eighths_of<float const*>(memory, 6, 2)) {}

CombineWork::CombineWork(PullTask const& task, Batches& batches)
    : task_(task),
      batches_(batches),
      crossing_(*task.crossing),
      args_(task.call.args),
      routing_(*task.call.args.handle.routing()),
      width_(width_of_sums(task)),
      returned_(returned_rows(task)) {
  auto all = sums_back(task);
  for (SumsBack& each : all) back_.push_back({.sums = std::move(each)});
}

bool CombineWork::expanded() const {
  return routing_.layout == OutputLayout::expanded;
}

// As in DispatchWork: while a launch is under way the wait is for the GPU, and without one for a neighbour.
void CombineWork::run() {
  TraceScope const span(summing, task_.rank);
  Crossing::Patience waiting = Crossing::patience(task_.signals);
  while (!done()) {
    crossing_.poll(task_.signals);
    bool const ended = batches_.turn(task_.signals);
    bool const took = take_chunks();
    bool const launched = launch_some();
    if (ended || took || launched) {
      waiting = Crossing::patience(task_.signals);
    } else if (!batches_.idle()) {
      std::this_thread::yield();
    } else {
      crossing_.rest(task_.signals, awaited(), summing, waiting);
    }
  }
  batches_.drain(task_.signals, [this] { crossing_.poll(task_.signals); });
}

bool CombineWork::done() const {
  return next_token_ == routing_.num_tokens &&
         std::ranges::all_of(back_, [](Back const& each) { return !each.room && each.sums.writer.done(); });
}

int CombineWork::awaited() const {
  for (ReturnedRows const& each : returned_)
    if (each.has(next_token_) && !each.row()) return each.way().neighbour;
  for (Back const& each : back_)
    if (each.room || !each.sums.writer.done()) return crossing_.keeps_room_from(each.sums.to.neighbour);
  return crossing_.ways().front().neighbour;
}

bool CombineWork::has_room(SumLists const& lists) const {
  return fits_one_more(lists, task_.call, returned_.size());
}

bool CombineWork::launch_some() {
  if (!batches_.has_room()) return false;
  SumLists lists(batches_.room());
  Steps steps;
  fill_chunks(lists, steps);
  sum_tokens(lists, steps);
  if (lists.rows.size() == 0 && steps.empty()) return false;
  launch(lists, std::move(steps));
  return true;
}

void CombineWork::launch(SumLists const& lists, Steps steps) {
  SumArgs const args{.rows = lists.rows.data(),
                     .terms = lists.terms.data(),
                     .numbers = lists.numbers.data(),
                     .number_terms = lists.number_terms.data(),
                     .count = lists.rows.size(),
                     .number_count = lists.numbers.size(),
                     .elements = static_cast<std::uint32_t>(args_.x.size(1)),
                     .width = width_,
                     .from_zero = args_.weights_of_all_ranks ? 1U : 0U,
                     .dtype = args_.x.dtype};
  if (args.count > 0)
    check_cuda(launch_sums(args, task_.call.workers, batches_.stream()), "launching the kernel that sums rows");
  batches_.launched(std::move(steps));
}

CombineWork::RowAt CombineWork::at(scale_out::PlacedRow const& row) const {
  return {.rank = crossing_.node().rank_of(row.local_rank), .row = row.row};
}

SumTerm CombineWork::term_of(RowAt const& at) const {
  SourceRows const& from = task_.sources[static_cast<std::size_t>(at.rank)];
  return {.row = from.x + static_cast<std::size_t>(at.row) * row_bytes_of(args_.x),
          .weight = from.row_weights != nullptr ? from.row_weights + at.row : nullptr,
          .f32 = 0};
}

// The weight of a row, or of a slot of a row in the flat layout.
float const* CombineWork::weight_at(RowAt const& at, std::int64_t slot) const {
  float const* const from = task_.sources[static_cast<std::size_t>(at.rank)].weights;
  return expanded() ? from + at.row : from + at.row * task_.call.out_weights.size(1) + slot;
}

void CombineWork::fill_chunks(SumLists& lists, Steps& steps) {
  while (has_room(lists) && in_turn(back_, next_back_, [&](Back& back) { return fill(back, lists, steps); }))
    continue;
}

// Returns whether it did anything. A chunk of many small rows may take several launches; it is sent behind the
// last.
bool CombineWork::fill(Back& back, SumLists& lists, Steps& steps) {
  if (!back.room) {
    if (back.sums.writer.done()) return false;
    back.room = crossing_.port().room_for(back.sums.to.neighbour);
    if (!back.room) return false;
    back.bytes = back.sums.writer.begin(back.room->memory);
  }
  std::size_t rows = 0;
  while (has_room(lists)) {
    auto const to = back.sums.writer.next_row();
    if (!to) {
      steps.emplace_back([this, room = *back.room, bytes = back.bytes] { send(room, bytes); });
      back.room.reset();
      return true;
    }
    add_back(lists, back.sums.tokens, *to);
    if (++rows % sums_between_looks == 0) crossing_.poll(task_.signals);
  }
  return true;
}

// A rank of this node that gave up may have reused the rows that were just read. Acquire: pairs with the release
// store in Signals::report(), which it makes before it does.
void CombineWork::send(scale_out::Port::Room const& room, std::size_t bytes) {
  std::atomic_thread_fence(std::memory_order_acquire);
  task_.signals.check_usable();
  crossing_.port().send(room, bytes);
}

void CombineWork::add_back(SumLists& lists, scale_out::PlacedTokens const& tokens,
                           scale_out::CombineWriter::Row const& to) {
  std::uint32_t const first = lists.terms.size();
  for (scale_out::PlacedRow const& row : tokens.rows_of(to.token)) lists.terms.add(term_of(at(row)));
  lists.rows.add({.out = to.x,
                  .first = first,
                  .own = first,
                  .own_end = lists.terms.size(),
                  .end = lists.terms.size(),
                  .out_f32 = task_.f32_partials ? 1U : 0U});
  if (!to.weights.empty()) add_back_weights(lists, tokens, to);
}

void CombineWork::add_back_weights(SumLists& lists, scale_out::PlacedTokens const& tokens,
                                   scale_out::CombineWriter::Row const& to) {
  auto const rows = tokens.rows_of(to.token);
  auto const slots = tokens.slots_of(to.token);
  std::size_t const count = to.weights.size() / sizeof(float);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t const first = lists.number_terms.size();
    for (scale_out::PlacedRow const& row : rows) {
      if (args_.weights_of_all_ranks) {
        lists.number_terms.add(weight_at(at(row), static_cast<std::int64_t>(i)));
      } else if (expanded() ? row.slot == slots[i].slot : row.local_rank == slots[i].local_rank) {
        lists.number_terms.add(weight_at(at(row), slots[i].slot));
      }
    }
    lists.numbers.add({.out = reinterpret_cast<float*>(to.weights.data()) + i,
                       .first = first,
                       .own = first,
                       .own_end = lists.number_terms.size(),
                       .end = lists.number_terms.size()});
  }
}

bool CombineWork::take_chunks() {
  try {
    bool any = false;
    for (ReturnedRows& each : returned_) any = each.take(crossing_.port()) || any;
    return any;
  } catch (InvalidArgument const& error) {
    task_.signals.fail(SystemError(error.what(), {.rank = task_.rank, .phase = summing}));
  }
}

void CombineWork::sum_tokens(SumLists& lists, Steps& steps) {
  std::int64_t const end = std::min(next_token_ + tokens_in_turn, routing_.num_tokens);
  while (next_token_ < end && has_room(lists) && sum_next(lists, steps))
    if (static_cast<std::size_t>(next_token_) % sums_between_looks == 0) crossing_.poll(task_.signals);
}

// The next token of this rank; returns false while what other nodes bring has not come.
bool CombineWork::sum_next(SumLists& lists, Steps& steps) {
  std::int64_t const token = next_token_;
  for (ReturnedRows const& each : returned_)
    if (each.has(token) && !each.row()) return false;
  add_terms(lists, token);
  if (task_.call.out_weights.given()) add_weights(lists, token);
  for (ReturnedRows& each : returned_) {
    if (!each.has(token)) continue;
    if (auto const used = each.pass())
      steps.emplace_back([this, chunk = *used] { crossing_.port().give_back(chunk); });
  }
  ++next_token_;
  return true;
}

// Biases, then what nodes bring, in their order.
void CombineWork::add_terms(SumLists& lists, std::int64_t token) {
  SumRow sum{.out = const_cast<std::byte*>(row_at(task_.call.out, token)),
             .first = lists.terms.size(),
             .own = 0,
             .own_end = 0,
             .end = 0,
             .out_f32 = 0};
  for (ConstTensorView const& bias : {args_.bias0, args_.bias1})
    if (bias.given()) lists.terms.add({.row = row_at(bias, token), .weight = nullptr, .f32 = 0});
  std::size_t way = 0;
  for (int node = 0; node < crossing_.node().topology().num_nodes(); ++node) {
    if (node == crossing_.node().node()) {
      sum.own = lists.terms.size();
      for (Route const& route : routing_.table.of(token))
        if (crossing_.node().has(route.rank)) lists.terms.add(term_of({.rank = route.rank, .row = route.row}));
      sum.own_end = lists.terms.size();
      continue;
    }
    ReturnedRows const& from = returned_[way++];
    if (from.has(token))
      lists.terms.add({.row = from.row()->x, .weight = nullptr, .f32 = task_.f32_partials ? 1U : 0U});
  }
  sum.end = lists.terms.size();
  lists.rows.add(sum);
}

// Of one rank each slot that is used comes from the rank of its expert. Of all ranks they are summed as rows are:
// by node, then nodes in their order.
void CombineWork::add_weights(SumLists& lists, std::int64_t token) {
  std::int64_t const top_k = task_.call.out_weights.size(1);
  float* const out = static_cast<float*>(task_.call.out_weights.data) + token * top_k;
  for (std::int64_t slot = 0; slot < top_k; ++slot) {
    SumNumber number{.out = out + slot, .first = lists.number_terms.size(), .own = 0, .own_end = 0, .end = 0};
    std::size_t way = 0;
    for (int node = 0; node < crossing_.node().topology().num_nodes(); ++node) {
      if (node == crossing_.node().node()) {
        number.own = lists.number_terms.size();
        add_own_weights(lists, token, slot);
        number.own_end = lists.number_terms.size();
        continue;
      }
      ReturnedRows const& from = returned_[way++];
      if (!from.has(token)) continue;
      if (float const* const weight = weight_from(from, slot)) lists.number_terms.add(weight);
    }
    number.end = lists.number_terms.size();
    lists.numbers.add(number);
  }
}

void CombineWork::add_own_weights(SumLists& lists, std::int64_t token, std::int64_t slot) {
  for (Route const& route : routing_.table.of(token)) {
    if (!crossing_.node().has(route.rank)) continue;
    bool const takes =
        args_.weights_of_all_ranks ||
        (expanded()
             ? route.slot == slot
             : routing_.table.slot_rank[static_cast<std::size_t>(token * task_.call.out_weights.size(1) + slot)] ==
                   route.rank);
    if (takes) lists.number_terms.add(weight_at({.rank = route.rank, .row = route.row}, slot));
  }
}

// What came for a slot; null: nothing, the slot belongs to another node.
float const* CombineWork::weight_from(ReturnedRows const& from, std::int64_t slot) const {
  auto const* const weights = reinterpret_cast<float const*>(from.row()->weights.data());
  if (args_.weights_of_all_ranks) return weights + slot;
  std::uint64_t const bit = std::uint64_t{1} << static_cast<unsigned>(slot);
  if ((from.slots() & bit) == 0) return nullptr;
  return weights + std::popcount(from.slots() & (bit - 1));
}

}  // namespace switchyard::cuda
