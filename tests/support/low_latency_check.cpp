#include "support/low_latency_check.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/numbers.hpp"

namespace switchyard::test {
namespace {

struct Range {
  std::int64_t begin;
  std::int64_t count;
};

Range unpack(std::int64_t range) {
  return {range >> 32, range & 0xffffffff};
}

Range range_at(LowLatencyReceived const& seen, std::int64_t local, int ranks, int source) {
  return unpack(seen.ranges.data<std::int64_t>()[local * ranks + source]);
}

// Several shapes of tensors at once: dims in front of the last are all but the row.
void check_strides(Tensor const& tensor, std::initializer_list<std::int64_t> strides, char const* name) {
  int dim = 0;
  for (std::int64_t const stride : strides) {
    if (tensor.view().numel() > 0 && tensor.size(dim) > 1)
      check_equal(tensor.view().stride(dim), stride, name, " stride ", dim);
    ++dim;
  }
}

std::int64_t element_at(Tensor const& tensor, std::int64_t outer, std::int64_t row, std::int64_t column) {
  TensorView const v = tensor.view();
  return outer * v.stride(0) + row * v.stride(1) + column * v.stride(2);
}

// By how much LogFMT-10 may miss each value of a row: levels are 1/510 of the logarithmic range of 128 channels
// apart.
std::vector<float> coding_misses(SlotProblem const& p, std::vector<std::byte> const& row) {
  std::vector<float> misses(index(p.the.hidden));
  for (std::size_t begin = 0; begin < misses.size(); begin += 128) {
    std::size_t const end = std::min(misses.size(), begin + 128);
    double greatest = 0;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t h = begin; h < end; ++h) {
      misses[h] = std::fabs(get(row.data(), p.the.combine_dtype, h));
      greatest = std::max(greatest, static_cast<double>(misses[h]));
      least = std::min(least, static_cast<double>(misses[h]));
    }
    double const step = std::log2(greatest / least) / 510;
    for (std::size_t h = begin; h < end; ++h)
      misses[h] *= static_cast<float>((std::exp2(step) - 1) / 2 * 1.01 + 0x1p-14);
  }
  return misses;
}

}  // namespace

SlotChecker::SlotChecker(SlotProblem const& problem, int rank)
    : p_(problem), c_(problem.the), rank_(rank), ours_(experts_of(problem.base.the, rank)) {}

void SlotChecker::check_received(LowLatencyReceived const& seen) const {
  check_shapes(seen);
  for (std::int64_t local = 0; local < ours_.count() && c_.by_expert(); ++local) check_expert(seen, local);
  for (int source = 0; source < c_.ranks && !c_.by_expert(); ++source) check_source(seen, source);
  for (Arrival const& row : arrivals(seen)) check_row(seen, row);
}

void SlotChecker::check_shapes(LowLatencyReceived const& seen) const {
  std::int64_t const outer = c_.by_expert() ? ours_.count() : c_.ranks;
  std::int64_t const rows = c_.by_expert() ? c_.ranks * c_.tokens : c_.tokens;
  check_shape(seen.x, c_.received_dtype(), {outer, rows, c_.width()}, "x");
  check_shape(seen.counts, DType::i32, {outer}, "counts");
  check_shape(seen.source_token, DType::i32, {outer, rows}, "source_token");
  check_equal(seen.ranges.given(), c_.by_expert(), "ranges given");
  if (c_.by_expert()) check_shape(seen.ranges, DType::i64, {outer, c_.ranks}, "ranges");
  check_equal(seen.scales.given(), c_.scaled(), "scales given");
  if (c_.scaled()) check_scale_shape(seen.scales);
  bool const has_weights = !c_.by_expert() && c_.weights;
  check_equal(seen.topk_idx.given(), !c_.by_expert(), "topk_idx given");
  check_equal(seen.topk_weights.given(), has_weights, "topk_weights given");
  if (!c_.by_expert()) check_shape(seen.topk_idx, DType::i32, {outer, rows, c_.top_k}, "topk_idx");
  if (has_weights) check_shape(seen.topk_weights, DType::f32, {outer, rows, c_.top_k}, "topk_weights");
  check(seen.handle.given(), "handle: not given");
}

void SlotChecker::check_scale_shape(Tensor const& scales) const {
  std::int64_t const outer = c_.by_expert() ? ours_.count() : c_.ranks;
  std::int64_t const rows = c_.by_expert() ? c_.ranks * c_.tokens : c_.tokens;
  std::int64_t const width = c_.scale_width();
  if (!c_.by_expert() || c_.opaque()) return check_shape(scales, c_.scale_dtype(), {outer, rows, width}, "scales");
  check_equal(name_of(scales.dtype()), name_of(c_.scale_dtype()), "scales dtype");
  check_equal(scales.view().ndim, 3, "scales dimensions");
  check(scales.size(0) == outer && scales.size(1) == rows && scales.size(2) == width, "scales: shape [",
        scales.size(0), ", ", scales.size(1), ", ", scales.size(2), "]");
  check_strides(scales, {rows * width, 1, rows}, "scales");
}

// Of a group: a local expert (expert_major), or this rank.
std::vector<std::int64_t> SlotChecker::expected_tokens(std::int64_t group, int source) const {
  if (presence(peers_, source) == Presence::gone) return {};
  return c_.by_expert() ? tokens_for_expert(p_, source, ours_.begin + group) : tokens_for_rank(p_, source, rank_);
}

void SlotChecker::check_count(std::int64_t seen, std::int64_t group, int source) const {
  if (presence(peers_, source) == Presence::unsure && seen == 0) return;
  auto const expected = static_cast<std::int64_t>(expected_tokens(group, source).size());
  check_equal(seen, expected, "rows of source ", source, c_.by_expert() ? " for local expert " : " for rank ",
              c_.by_expert() ? group : rank_);
}

// The ranges tile what counts says; more is counted only where a source that is gone claimed rows.
void SlotChecker::check_expert(LowLatencyReceived const& seen, std::int64_t local) const {
  std::vector<Range> ranges;
  std::int64_t covered = 0;
  for (int source = 0; source < c_.ranks; ++source) {
    Range const range = range_at(seen, local, c_.ranks, source);
    check_count(range.count, local, source);
    if (range.count > 0) ranges.push_back(range);
    covered += range.count;
  }
  std::int64_t const count = seen.counts.data<std::int32_t>()[local];
  bool const all_here = std::all_of(peers_.begin(), peers_.end(), [](Presence p) { return p == Presence::here; });
  if (all_here) check_equal(count, covered, "counts[", local, "], by the ranges");
  check(count >= covered && count <= c_.ranks * c_.tokens, "counts[", local, "] = ", count, ", ranges cover ",
        covered);
  std::sort(ranges.begin(), ranges.end(), [](Range a, Range b) { return a.begin < b.begin; });
  std::int64_t end = 0;
  for (Range const& range : ranges) {
    check(range.begin >= end, "local expert ", local, ": ranges overlap at row ", range.begin);
    end = range.begin + range.count;
  }
  check(end <= count, "local expert ", local, ": a range ends at ", end, " of ", count);
}

void SlotChecker::check_source(LowLatencyReceived const& seen, int source) const {
  check_count(seen.counts.data<std::int32_t>()[source], 0, source);
}

std::vector<SlotChecker::Arrival> SlotChecker::arrivals(LowLatencyReceived const& seen) const {
  std::vector<Arrival> rows;
  std::int64_t const groups = c_.by_expert() ? ours_.count() : 1;
  for (std::int64_t group = 0; group < groups; ++group) {
    for (int source = 0; source < c_.ranks; ++source) {
      Range range{c_.tokens * source, 0};
      if (c_.by_expert()) range = range_at(seen, group, c_.ranks, source);
      if (!c_.by_expert()) range.count = seen.counts.data<std::int32_t>()[source];
      if (range.count == 0) continue;
      std::int64_t slot = group * c_.ranks * c_.tokens + range.begin;
      for (std::int64_t const token : expected_tokens(group, source))
        rows.push_back({slot++, c_.by_expert() ? ours_.begin + group : rank_, source, token});
    }
  }
  return rows;
}

std::vector<std::int64_t> SlotChecker::rows_per_expert() const {
  std::vector<std::int64_t> rows(index(ours_.count()), 0);
  for (std::int64_t local = 0; local < ours_.count(); ++local) {
    for (int source = 0; source < c_.ranks; ++source) {
      if (presence(peers_, source) == Presence::gone) continue;
      auto const tokens = tokens_for_expert(p_, source, ours_.begin + local);
      rows[index(local)] += static_cast<std::int64_t>(tokens.size());
    }
  }
  return rows;
}

void SlotChecker::check_row(LowLatencyReceived const& seen, Arrival const& row) const {
  auto const where = [&row](char const* name) {
    return text(name, " in slot ", row.slot, " (", "expert or rank ", row.maker, ", source ", row.source,
                ", token ", row.token, ")");
  };
  std::int32_t const token = seen.source_token.data<std::int32_t>()[row.slot];
  if (token != row.token) check_equal(token, row.token, where("source_token"));
  std::vector<std::byte> const& x = p_.sent[index(row.source)][index(row.token)].x;
  check_bytes(seen.x.data<std::byte>() + index(row.slot) * x.size(), x.data(), x.size(),
              [&] { return where("x"); });
  if (c_.scaled()) check_scales(seen, row);
  if (!c_.by_expert()) check_slots(seen, row);
}

void SlotChecker::check_scales(LowLatencyReceived const& seen, Arrival const& row) const {
  std::vector<std::byte> const& expected = p_.sent[index(row.source)][index(row.token)].scales;
  std::int64_t const rows = seen.scales.size(1);
  std::size_t const element = size_of(c_.scale_dtype());
  std::vector<std::byte> gathered(index(c_.scale_width()) * element);
  for (std::int64_t g = 0; g < c_.scale_width(); ++g) {
    std::int64_t const at = element_at(seen.scales, row.slot / rows, row.slot % rows, g);
    std::memcpy(&gathered[index(g) * element], seen.scales.data<std::byte>() + index(at) * element, element);
  }
  // Exponents fill the last word in part; the rest of it says nothing.
  check_bytes(gathered.data(), expected.data(), expected.size(), [&] {
    return text("scales in slot ", row.slot, " (source ", row.source, ", token ", row.token, ")");
  });
}

void SlotChecker::check_slots(LowLatencyReceived const& seen, Arrival const& row) const {
  for (int k = 0; k < c_.top_k; ++k) {
    std::int64_t const at = row.slot * c_.top_k + k;
    std::int64_t const id = ids_of(p_.base, row.source, row.token)[k];
    std::int64_t const local = ours_.holds(id) ? id - ours_.begin : -1;
    check_equal(seen.topk_idx.data<std::int32_t>()[at], local, "topk_idx in slot ", row.slot, " [", k, "]");
    if (!c_.weights) continue;
    float const weight = local < 0 ? 0.0F : weight_of(p_.base, {row.source, row.token, -1}, k);
    check_equal(seen.topk_weights.data<float>()[at], weight, "topk_weights in slot ", row.slot, " [", k, "]");
  }
}

void SlotChecker::check_combined(ConstTensorView const& out) const {
  check_equal(out.size(0), p_.tokens(rank_), "tokens of out");
  for (std::int64_t token = 0; token < out.size(0); ++token) {
    auto const* const row =
        static_cast<std::byte const*>(out.data) + index(token * out.stride(0)) * size_of(out.dtype);
    if (c_.coding == CombineCoding::none) check_combined_row(row, token);
    if (c_.coding != CombineCoding::none) check_close_row(row, token);
  }
}

void SlotChecker::check_combined_row(std::byte const* seen, std::int64_t token) const {
  std::vector<std::byte> expected = combined_row(p_, rank_, token, peers_);
  Peers all = peers_;
  std::replace(all.begin(), all.end(), Presence::unsure, Presence::here);
  if (all != peers_ && std::memcmp(seen, expected.data(), expected.size()) != 0)
    expected = combined_row(p_, rank_, token, all);
  check_bytes(seen, expected.data(), expected.size(), [&] { return text("sum of token ", token); });
}

// LogFMT-10 may miss each value by half of what two levels are apart there, before its weight.
void SlotChecker::check_close_row(std::byte const* seen, std::int64_t token) const {
  std::vector<float> const exact = slot_sum(p_, rank_, token, peers_);
  std::vector<float> tolerance(exact.size(), 0.0F);
  for (SlotPart const& part : slot_parts(p_, rank_, token)) {
    if (presence(peers_, part.owner) != Presence::here) continue;
    std::vector<float> const misses = coding_misses(p_, slot_output(p_, part.maker, rank_, token));
    for (std::size_t h = 0; h < exact.size(); ++h) tolerance[h] += misses[h] * std::fabs(part.weight);
  }
  for (std::size_t h = 0; h < exact.size(); ++h) {
    float const value = get(seen, c_.combine_dtype, h);
    float const rounding =
        (std::fabs(exact[h]) + tolerance[h]) * (c_.combine_dtype == DType::f16 ? 0x1p-11F : 0x1p-8F);
    float const most = tolerance[h] + rounding + 1e-6F;
    check(std::fabs(value - exact[h]) <= most, "sum of token ", token, " [", h, "]: ", value, " is not within ",
          most, " of ", exact[h]);
  }
}

std::vector<std::byte> outputs_of(SlotChecker const& checker, SlotProblem const& p,
                                  LowLatencyReceived const& seen) {
  std::size_t const row_bytes = index(p.the.hidden) * size_of(p.the.combine_dtype);
  std::vector<std::byte> rows(index(seen.x.size(0) * seen.x.size(1)) * row_bytes, std::byte{0xff});
  for (SlotChecker::Arrival const& row : checker.arrivals(seen)) {
    std::vector<std::byte> const values = slot_output(p, row.maker, row.source, row.token);
    std::memcpy(rows.data() + index(row.slot) * row_bytes, values.data(), row_bytes);
  }
  return rows;
}

}  // namespace switchyard::test
