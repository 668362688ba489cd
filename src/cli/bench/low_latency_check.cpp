#include "cli/bench/low_latency_check.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "oracle/check_sums.hpp"
#include "oracle/compare.hpp"

namespace switchyard::cli {

namespace {

// The bytes of one row, on the host.
class RowReader {
 public:
  RowReader(TensorMemory const& memory, Tensor const& rows)
      : memory_(memory),
        base_(rows.data<std::byte>()),
        bytes_(static_cast<std::size_t>(rows.size(2)) * size_of(rows.dtype())),
        buffer_(bytes_) {}
  std::byte const* operator[](std::int64_t slot) {
    memory_.copy(buffer_.data(), base_ + static_cast<std::size_t>(slot) * bytes_, bytes_);
    return buffer_.data();
  }

 private:
  TensorMemory const& memory_;
  std::byte const* base_;
  std::size_t bytes_;
  std::vector<std::byte> buffer_;
};

}  // namespace

LatencyChecker::LatencyChecker(LatencyCase const& of, int set, int rank)
    : case_(of),
      problem_(of.problem(set)),
      routing_(of.routing(set)),
      rank_(rank),
      rows_(expected_rows(problem_, routing_, rank)) {}

std::vector<LatencyChecker::Block> LatencyChecker::blocks_by_expert(TensorMemory const& memory,
                                                                    LowLatencyReceived const& got) const {
  Tensor const ranges = memory.fetch(got.ranges);
  std::vector<Block> blocks;
  for (std::int64_t i = 0; i < ranges.view().numel(); ++i) {
    std::int64_t const range = ranges.data<std::int64_t>()[i];
    blocks.push_back({i / problem_.ranks * got.x.size(1) + (range >> 32), range & 0xffffffff});
  }
  return blocks;
}

std::vector<LatencyChecker::Block> LatencyChecker::blocks_by_source(TensorMemory const& memory,
                                                                    LowLatencyReceived const& got) const {
  Tensor const counts = memory.fetch(got.counts);
  std::vector<Block> blocks;
  for (int source = 0; source < problem_.ranks; ++source)
    blocks.push_back({source * got.x.size(1), counts.data<std::int32_t>()[source]});
  return blocks;
}

std::size_t LatencyChecker::block_of(ExpectedRow const& row) const {
  return static_cast<std::size_t>(case_.by_expert() ? row.expert * problem_.ranks + row.source : row.source);
}

// Rows of a block are in the order of tokens, as the expected ones are.
std::optional<std::string> LatencyChecker::locate(TensorMemory const& memory, LowLatencyReceived const& got) {
  auto const blocks = case_.by_expert() ? blocks_by_expert(memory, got) : blocks_by_source(memory, got);
  std::vector<std::int64_t> taken(blocks.size());
  slots_.clear();
  for (ExpectedRow const& row : rows_) {
    std::size_t const block = block_of(row);
    slots_.push_back(blocks[block].begin + taken[block]++);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].count == taken[i]) continue;
    return fmt::format("rows of source {} on rank {}, expert {}: expected {}, seen {} (seed {})",
                       i % static_cast<std::size_t>(problem_.ranks), rank_,
                       i / static_cast<std::size_t>(problem_.ranks), taken[i], blocks[i].count, problem_.seed);
  }
  return check_counts(memory, got);
}

// Blocks of an expert must fill its first rows without a gap, in whatever order.
std::optional<std::string> LatencyChecker::check_counts(TensorMemory const& memory,
                                                        LowLatencyReceived const& got) const {
  if (!case_.by_expert()) return std::nullopt;
  Tensor const counts = memory.fetch(got.counts);
  auto const expected = expected_tokens_per_expert(problem_, routing_, rank_);
  std::vector<std::int64_t> sorted = slots_;
  std::sort(sorted.begin(), sorted.end());
  std::size_t at = 0;
  for (std::size_t expert = 0; expert < expected.size(); ++expert) {
    std::int64_t const seen = counts.data<std::int32_t>()[expert];
    if (seen != expected[expert])
      return fmt::format("rows of expert {} on rank {}: expected {}, seen {} (seed {})", expert, rank_,
                         expected[expert], seen, problem_.seed);
    std::int64_t const first = static_cast<std::int64_t>(expert) * got.x.size(1);
    for (std::int64_t i = 0; i < expected[expert]; ++i, ++at) {
      if (sorted[at] != first + i)
        return fmt::format("ranges of expert {} on rank {} leave row {} out (seed {})", expert, rank_, i,
                           problem_.seed);
    }
  }
  return std::nullopt;
}

std::optional<std::string> LatencyChecker::check_dispatch(TensorMemory const& memory,
                                                          LowLatencyReceived const& got) const {
  LowLatencyReceived host;
  for (auto const part : {&LowLatencyReceived::scales, &LowLatencyReceived::source_token,
                          &LowLatencyReceived::topk_idx, &LowLatencyReceived::topk_weights})
    host.*part = memory.fetch(got.*part);
  RowReader rows(memory, got.x);
  SentRow expected;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    std::int32_t const token = host.source_token.data<std::int32_t>()[slots_[i]];
    if (token != rows_[i].token)
      return mismatch(Place{"source token", rank_, i, -1, problem_.seed}, rows_[i].token, token);
    fill_sent(problem_, case_.cast(), {rows_[i].source, rows_[i].token}, expected);
    Place const at_x{"dispatched x", rank_, i, -1, problem_.seed};
    if (auto fault = compare_row(at_x, expected.x, rows[slots_[i]], size_of(problem_.received_dtype())))
      return fault;
    if (!expected.scales.empty()) {
      if (auto fault = check_scales(host.scales, i, expected.scales)) return fault;
    }
    if (!case_.by_expert()) {
      if (auto fault = check_ids(host, i)) return fault;
    }
  }
  return std::nullopt;
}

std::optional<std::string> LatencyChecker::check_scales(Tensor const& scales, std::size_t row,
                                                        std::vector<std::byte> const& expected) const {
  TensorView const view = scales.view();
  std::int64_t const first =
      slots_[row] / view.size(1) * view.stride(0) + slots_[row] % view.size(1) * view.stride(1);
  std::vector<std::uint32_t> seen;
  for (std::int64_t g = 0; g < view.size(2); ++g)
    seen.push_back(scales.data<std::uint32_t>()[first + g * view.stride(2)]);
  Place const place{"scale", rank_, row, -1, problem_.seed};
  if (seen.size() * 4 != expected.size()) return mismatch(place, expected.size(), seen.size() * 4);
  return compare_row(place, expected, std::as_bytes(std::span(seen)).data(), 4);
}

std::optional<std::string> LatencyChecker::check_ids(LowLatencyReceived const& host, std::size_t row) const {
  auto const width = static_cast<std::size_t>(problem_.top_k);
  ExpertRange const range = experts_of(problem_, rank_);
  TokenKey const key{rows_[row].source, rows_[row].token};
  auto const ids = routing_.token(key.rank, key.token);
  std::vector<std::int32_t> expected_ids(width);
  std::vector<float> weights(width);
  fill_weights(problem_, key, weights);
  for (std::size_t k = 0; k < width; ++k) {
    bool const ours = range.holds(ids[k]);
    expected_ids[k] = ours ? ids[k] - range.begin : -1;
    if (!ours) weights[k] = 0;
  }
  std::size_t const at = static_cast<std::size_t>(slots_[row]) * width;
  Place const at_ids{"top-k id", rank_, row, -1, problem_.seed};
  if (auto fault = compare<std::int32_t>(at_ids, expected_ids, host.topk_idx.data<std::int32_t>() + at))
    return fault;
  Place const at_weights{"top-k weight", rank_, row, -1, problem_.seed};
  return compare<float>(at_weights, weights, host.topk_weights.data<float>() + at);
}

void LatencyChecker::write_outputs(TensorMemory const& memory, Tensor const& outputs) const {
  std::vector<std::uint16_t> row(static_cast<std::size_t>(problem_.hidden));
  std::size_t const bytes = row.size() * 2;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    fill_expert_output(problem_, {rank_, rows_[i].expert, {rows_[i].source, rows_[i].token}}, row);
    memory.copy(outputs.data<std::byte>() + static_cast<std::size_t>(slots_[i]) * bytes, row.data(), bytes);
  }
}

// expert_major: by slot, with its weight; rank_major: by rank. Products and sums are rounded one by one.
void LatencyChecker::add_expected(std::int64_t token, std::span<float> sum) const {
  std::vector<std::uint16_t> bits(sum.size());
  std::vector<float> row(sum.size());
  auto const ids = routing_.token(rank_, token);
  std::vector<float> weights(ids.size());
  fill_weights(problem_, {rank_, token}, weights);
  auto const add = [&](Contribution const& from, float weight) {
    fill_expert_output(problem_, {from.rank, from.expert, {rank_, token}}, bits);
    std::transform(bits.begin(), bits.end(), row.begin(), bf16_to_float);
    if (case_.latency().coding == CombineCoding::logfmt10) code_and_decode(row);
    for (std::size_t c = 0; c < sum.size(); ++c) {
      float const product = row[c] * weight;
      sum[c] = sum[c] + product;
    }
  };
  if (!case_.by_expert()) {
    for (Contribution const& from : contributions(problem_, ids)) add(from, 1.0F);
    return;
  }
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0) continue;
    int const rank = rank_of_expert(problem_, ids[k]);
    add({rank, ids[k] - experts_of(problem_, rank).begin}, weights[k]);
  }
}

std::optional<std::string> LatencyChecker::check_combine(std::span<std::uint16_t const> got) const {
  return check_sums(problem_, rank_, got,
                    [&](std::int64_t token, std::span<float> sum) { add_expected(token, sum); });
}

}  // namespace switchyard::cli
