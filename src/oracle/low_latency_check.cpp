#include "oracle/low_latency_check.hpp"

#include <algorithm>
#include <cstring>

#include "oracle/sent.hpp"

namespace switchyard::oracle {

LowLatencyChecker::LowLatencyChecker(Terms const& terms, SlotTerms const& slots, JobData const& data, int rank)
    : terms_(terms), slots_(slots), data_(data), rank_(rank), ours_(experts_of(terms, rank)) {}

Presence LowLatencyChecker::presence(int rank) const {
  return peers_.empty() ? Presence::here : peers_[static_cast<std::size_t>(rank)];
}

std::int64_t LowLatencyChecker::groups() const {
  return terms_.by_expert ? ours_.count() : terms_.ranks;
}

std::int64_t LowLatencyChecker::group_rows() const {
  return terms_.by_expert ? terms_.ranks * slots_.max_tokens : slots_.max_tokens;
}

std::int64_t LowLatencyChecker::scale_width() const {
  if (opaque()) return slots_.scale_bytes;
  if (!terms_.fp8()) return 0;
  return terms_.cast == SendCast::fp8_ue8m0 ? (terms_.groups() + 3) / 4 : terms_.groups();
}

DType LowLatencyChecker::scale_dtype() const {
  if (opaque()) return DType::u8;
  return terms_.cast == SendCast::fp8_ue8m0 ? DType::i32 : DType::f32;
}

void LowLatencyChecker::check_received(LowLatencyReceived const& got) const {
  check_shapes(got);
  for (int expert = 0; terms_.by_expert && expert < ours_.count(); ++expert) check_expert(got, expert);
  for (int source = 0; !terms_.by_expert && source < terms_.ranks; ++source)
    check_block(block_of(got, -1, source), -1, source);
  for (Arrival const& row : arrivals(got)) check_row(got, row);
}

void LowLatencyChecker::check_shapes(LowLatencyReceived const& got) const {
  std::int64_t const outer = groups();
  std::int64_t const rows = group_rows();
  std::int64_t const scales = scale_width();
  bool const by_rank = !terms_.by_expert;
  expect_shape(place("x"), got.x, terms_.received_dtype(),
               {outer, rows, opaque() ? slots_.row_bytes : terms_.hidden});
  expect_shape(place("counts"), got.counts, DType::i32, {outer});
  expect_shape(place("source_token"), got.source_token, DType::i32, {outer, rows});
  expect_equal(place("scales given"), scales > 0, got.scales.given());
  if (scales > 0) {
    ConstTensorView view(nullptr, scale_dtype(), {outer, rows, scales});
    if (terms_.by_expert && !opaque()) view.strides = {rows * scales, 1, rows};
    expect_shape(place("scales"), got.scales, view);
  }
  expect_equal(place("ranges given"), terms_.by_expert, got.ranges.given());
  if (terms_.by_expert) expect_shape(place("ranges"), got.ranges, DType::i64, {outer, terms_.ranks});
  expect_equal(place("topk_idx given"), by_rank, got.topk_idx.given());
  if (by_rank) expect_shape(place("topk_idx"), got.topk_idx, DType::i32, {outer, rows, terms_.top_k});
  expect_equal(place("topk_weights given"), by_rank && terms_.weights, got.topk_weights.given());
  if (by_rank && terms_.weights)
    expect_shape(place("topk_weights"), got.topk_weights, DType::f32, {outer, rows, terms_.top_k});
  expect_equal(place("handle given"), true, got.handle.given());
}

// `expert`: local; -1 when rows are grouped by source.
LowLatencyChecker::Block LowLatencyChecker::block_of(LowLatencyReceived const& got, int expert, int source) const {
  if (!terms_.by_expert) return {source * group_rows(), got.counts.data<std::int32_t>()[source]};
  std::int64_t const range = got.ranges.data<std::int64_t>()[expert * terms_.ranks + source];
  return {expert * group_rows() + (range >> 32), range & 0xffffffff};
}

std::vector<Row> LowLatencyChecker::expected_rows(int expert, int source) const {
  if (presence(source) == Presence::gone) return {};
  int const global = ours_.begin + expert;
  auto rows = slot_rows(terms_, data_, source, terms_.by_expert ? ExpertRange{global, global + 1} : ours_);
  for (Row& row : rows) row.expert = terms_.by_expert ? expert : -1;
  return rows;
}

void LowLatencyChecker::check_block(Block const& block, int expert, int source) const {
  if (presence(source) == Presence::unsure && block.count == 0) return;
  Place at = place(terms_.by_expert ? "rows of an expert (row) and a source" : "rows of a source", source);
  at.row = expert;
  expect_equal(at, std::ssize(expected_rows(expert, source)), block.count);
}

// The blocks of the sources fill the expert's first rows without a gap, in whatever order; more is counted only
// where a source that is gone claimed rows.
void LowLatencyChecker::check_expert(LowLatencyReceived const& got, int expert) const {
  std::vector<Block> blocks;
  std::int64_t covered = 0;
  for (int source = 0; source < terms_.ranks; ++source) {
    Block const block = block_of(got, expert, source);
    check_block(block, expert, source);
    if (block.count > 0) blocks.push_back(block);
    covered += block.count;
  }
  Place at = place("counts of an expert (row)");
  at.row = expert;
  std::int64_t const count = got.counts.data<std::int32_t>()[expert];
  bool const all_here = std::all_of(peers_.begin(), peers_.end(), [](Presence p) { return p == Presence::here; });
  if (count < covered || count > group_rows() || (all_here && count != covered)) expect_equal(at, covered, count);
  std::sort(blocks.begin(), blocks.end(), [](Block const& a, Block const& b) { return a.begin < b.begin; });
  std::int64_t end = expert * group_rows();
  at.what = "range of an expert (row)";
  for (Block const& block : blocks) {
    if (block.begin < end) throw_mismatch(at, fmt::format("from {} on", end), fmt::format("{}", block.begin));
    end = block.begin + block.count;
  }
  std::int64_t const last = expert * group_rows() + count;
  if (end > last) throw_mismatch(at, fmt::format("up to {}", last), fmt::format("{}", end));
}

std::vector<LowLatencyChecker::Arrival> LowLatencyChecker::arrivals(LowLatencyReceived const& got) const {
  std::vector<Arrival> rows;
  int const experts = terms_.by_expert ? ours_.count() : 1;
  for (int expert = 0; expert < experts; ++expert) {
    for (int source = 0; source < terms_.ranks; ++source) {
      Block const block = block_of(got, expert, source);
      if (block.count == 0) continue;
      std::int64_t slot = block.begin;
      for (Row const& row : expected_rows(expert, source)) rows.push_back({slot++, row});
    }
  }
  return rows;
}

std::vector<std::int64_t> LowLatencyChecker::rows_per_expert() const {
  std::vector<std::int64_t> rows;
  for (int expert = ours_.begin; expert < ours_.end; ++expert) {
    std::int64_t& count = rows.emplace_back(0);
    for (int source = 0; source < terms_.ranks; ++source) {
      if (presence(source) == Presence::gone) continue;
      count += std::ssize(slot_rows(terms_, data_, source, {expert, expert + 1}));
    }
  }
  return rows;
}

void LowLatencyChecker::check_row(LowLatencyReceived const& got, Arrival const& at) const {
  std::int32_t const token = got.source_token.data<std::int32_t>()[at.slot];
  expect_equal(place("source_token", at), at.row.token, token);
  TokenBytes const expected = sent_token(terms_, data_, at.row.key());
  auto const* const x = got.x.data<std::byte>() + static_cast<std::size_t>(at.slot) * expected.x.size();
  expect_bytes(place("x", at), expected.x, x, size_of(terms_.received_dtype()));
  if (scale_width() > 0) check_scales(got.scales, at, expected.scales);
  if (!terms_.by_expert) check_slots(got, at);
}

void LowLatencyChecker::check_scales(Tensor const& scales, Arrival const& at,
                                     std::vector<std::byte> const& expected) const {
  TensorView const view = scales.view();
  std::size_t const element = size_of(view.dtype);
  std::vector<std::byte> seen(static_cast<std::size_t>(scale_width()) * element);
  std::int64_t const first = at.slot / group_rows() * view.stride(0) + at.slot % group_rows() * view.stride(1);
  for (std::size_t g = 0; g < seen.size() / element; ++g) {
    std::int64_t const from = first + static_cast<std::int64_t>(g) * view.stride(2);
    std::memcpy(&seen[g * element], scales.data<std::byte>() + static_cast<std::size_t>(from) * element, element);
  }
  expect_equal(place("bytes of scales", at), expected.size(), seen.size());
  expect_bytes(place("scales", at), expected, seen.data(), element);
}

void LowLatencyChecker::check_slots(LowLatencyReceived const& got, Arrival const& at) const {
  auto const width = static_cast<std::size_t>(terms_.top_k);
  std::vector<std::int32_t> ids(width);
  std::vector<float> weights = data_.weights(at.row.key());
  for (std::size_t k = 0; k < width; ++k) {
    ids[k] = static_cast<std::int32_t>(local_id(terms_, data_, at.row.key(), static_cast<int>(k), rank_));
    if (ids[k] < 0) weights[k] = 0;
  }
  std::int64_t const first = at.slot * terms_.top_k;
  expect_values(place("topk_idx", at), ids, got.topk_idx.data<std::int32_t>() + first);
  if (terms_.weights) expect_values(place("topk_weights", at), weights, got.topk_weights.data<float>() + first);
}

void LowLatencyChecker::check_combined(ConstTensorView const& out) const {
  expect_equal(place("tokens of out"), data_.tokens(rank_), out.size(0));
  for (std::int64_t token = 0; token < out.size(0); ++token) {
    auto const* const seen = static_cast<std::byte const*>(out.data) +
                             static_cast<std::size_t>(token * out.stride(0)) * size_of(out.dtype);
    check_sum_of_any(seen, token, peers_);
  }
}

// Of a rank that ended on its way, all of the row counts or nothing.
void LowLatencyChecker::check_sum_of_any(std::byte const* seen, std::int64_t token, Peers peers) const {
  auto const unsure = std::find(peers.begin(), peers.end(), Presence::unsure);
  if (unsure == peers.end()) return check_sum(seen, token, peers);
  *unsure = Presence::here;
  if (!mismatch_of([&] { check_sum_of_any(seen, token, peers); })) return;
  *unsure = Presence::gone;
  check_sum_of_any(seen, token, peers);
}

SumTerms LowLatencyChecker::sum_terms(std::int64_t token, Peers const& peers) const {
  SumTerms sum{
      .parts = slot_contributions(terms_, data_, {rank_, token}), .from_zero = true, .coding = slots_.coding};
  std::erase_if(sum.parts, [&](Contribution const& part) {
    return !peers.empty() && peers[static_cast<std::size_t>(part.maker)] != Presence::here;
  });
  return sum;
}

void LowLatencyChecker::check_sum(std::byte const* seen, std::int64_t token, Peers const& peers) const {
  Place const at{"combined x", rank_, terms_.seed, token};
  SumTerms const sum = sum_terms(token, peers);
  if (terms_.spans_nodes()) return expect_sum(at, terms_, sum_over_nodes(terms_, data_, sum, rank_), seen);
  expect_sum(at, terms_, sum_of(terms_, data_, sum), seen);
  // What a code may do to the values by its definition is checked on its own.
  if (slots_.coding != CombineCoding::none) expect_close(at, terms_, data_, sum, seen);
}

}  // namespace switchyard::oracle
