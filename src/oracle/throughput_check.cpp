#include "oracle/throughput_check.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include "oracle/numbers.hpp"
#include "oracle/sent.hpp"
#include "oracle/sums.hpp"

namespace switchyard::oracle {

ThroughputChecker::ThroughputChecker(Terms const& terms, DispatchTerms const& dispatch, JobData const& data,
                                     int rank)
    : terms_(terms),
      dispatch_(dispatch),
      data_(data),
      rank_(rank),
      rows_(received_rows(terms, data, rank, dispatch.alignment)) {
  if (dispatch.worst_rows > 0) rows_.resize(static_cast<std::size_t>(dispatch.worst_rows));
}

Place ThroughputChecker::place(char const* what, std::size_t row) const {
  return {what, rank_, terms_.seed, static_cast<std::int64_t>(row), rows_[row].key()};
}

void ThroughputChecker::check_dispatch(Dispatched const& got) const {
  check_shapes(got);
  for (std::size_t i = 0; i < rows_.size(); ++i) check_row(got, i);
  check_handle(got.handle);
  if (dispatch_.cached) return;
  std::vector<std::int64_t> const none;
  expect_equal(
      place("tokens_per_expert"),
      dispatch_.worst_rows > 0 ? none : padded_tokens_per_expert(terms_, data_, rank_, dispatch_.alignment),
      got.tokens_per_expert);
}

void ThroughputChecker::check_shapes(Dispatched const& got) const {
  std::int64_t const n = std::ssize(rows_);
  expect_shape(place("x"), got.x, terms_.received_dtype(), {n, terms_.hidden});
  expect_equal(place("scales given"), terms_.fp8(), got.scales.given());
  if (terms_.fp8()) expect_shape(place("scales"), got.scales, DType::f32, {n, terms_.groups()});
  expect_shape(place("source_token"), got.source_token, DType::i32, {n});
  if (!dispatch_.with_ids) return;
  expect_equal(place("topk_idx given"), has_ids(), got.topk_idx.given());
  if (has_ids()) expect_shape(place("topk_idx"), got.topk_idx, terms_.id_dtype, {n, terms_.top_k});
  expect_equal(place("topk_weights given"), has_weights(), got.topk_weights.given());
  if (!has_weights()) return;
  if (terms_.by_expert) expect_shape(place("topk_weights"), got.topk_weights, DType::f32, {n});
  if (!terms_.by_expert) expect_shape(place("topk_weights"), got.topk_weights, DType::f32, {n, terms_.top_k});
}

void ThroughputChecker::check_handle(Handle const& handle) const {
  bool const worst = dispatch_.worst_rows > 0;
  expect_equal(place("handle given"), true, handle.given());
  // The CUDA engine's host never learns them in worst-case mode.
  if (!worst || dispatch_.engine == EngineKind::cpu) {
    expect_equal(place("handle's tokens_per_expert"),
                 padded_tokens_per_expert(terms_, data_, rank_, dispatch_.alignment), handle.tokens_per_expert());
    expect_equal(place("handle's real_tokens_per_expert"), tokens_per_expert(terms_, data_, rank_),
                 handle.real_tokens_per_expert());
  }
  if (dispatch_.engine == EngineKind::cpu)
    expect_equal(place("recv_counts given"), false, handle.recv_counts().given());
  expect_equal(place("num_tokens"), data_.tokens(rank_), handle.num_tokens());
  if (worst) return;
  expect_equal(place("num_recv_rows"), std::ssize(rows_), handle.num_recv_rows());
  if (terms_.by_expert) return;
  expect_equal(place("recv_rows_end_by_rank"), rows_end_by_rank(terms_, data_, rank_),
               handle.recv_rows_end_by_rank());
}

void ThroughputChecker::check_row(Dispatched const& got, std::size_t at) const {
  Row const& row = rows_[at];
  expect_equal(place("source_token", at), static_cast<std::int32_t>(row.token),
               got.source_token.data<std::int32_t>()[at]);
  if (!row.pads() || dispatch_.zero_padding) check_payload(got, at);
  if (!dispatch_.with_ids) return;
  if (has_ids()) check_ids(got.topk_idx, at);
  if (has_weights()) check_weights(got.topk_weights, at);
}

void ThroughputChecker::check_payload(Dispatched const& got, std::size_t at) const {
  TokenBytes expected;
  if (rows_[at].pads()) {
    expected.x.resize(static_cast<std::size_t>(terms_.hidden) * size_of(terms_.received_dtype()));
    if (terms_.fp8()) expected.scales.resize(static_cast<std::size_t>(terms_.groups()) * sizeof(float));
  } else {
    expected = sent_token(terms_, data_, rows_[at].key());
  }
  auto const* const x = got.x.data<std::byte>() + at * expected.x.size();
  expect_bytes(place("x", at), expected.x, x, size_of(terms_.received_dtype()));
  if (!terms_.fp8()) return;
  expect_bytes(place("scales", at), expected.scales, got.scales.data<std::byte>() + at * expected.scales.size(),
               sizeof(float));
}

void ThroughputChecker::check_ids(Tensor const& ids, std::size_t at) const {
  auto const width = static_cast<std::size_t>(terms_.top_k);
  Row const& row = rows_[at];
  for (std::size_t k = 0; k < width; ++k) {
    std::int64_t const expected = row.pads() ? -1 : local_id(terms_, data_, row.key(), static_cast<int>(k), rank_);
    std::size_t const i = at * width + k;
    std::int64_t const seen =
        terms_.id_dtype == DType::i64 ? ids.data<std::int64_t>()[i] : ids.data<std::int32_t>()[i];
    if (seen != expected) expect_equal(place("topk_idx", at), expected, seen);
  }
}

void ThroughputChecker::check_weights(Tensor const& weights, std::size_t at) const {
  Row const& row = rows_[at];
  auto const width = static_cast<std::size_t>(terms_.by_expert ? 1 : terms_.top_k);
  if (terms_.by_expert && row.pads() && !dispatch_.zero_padding) return;
  std::vector<float> expected(width);
  if (!row.pads()) {
    std::vector<float> const all = data_.weights(row.key());
    for (std::size_t k = 0; k < width; ++k) {
      int const slot = terms_.by_expert ? row.slot : static_cast<int>(k);
      if (local_id(terms_, data_, row.key(), slot, rank_) >= 0) expected[k] = all[static_cast<std::size_t>(slot)];
    }
  }
  expect_values(place("topk_weights", at), expected, weights.data<float>() + at * width);
}

void ThroughputChecker::write_outputs(void* x) const {
  std::size_t const bytes = static_cast<std::size_t>(terms_.hidden) * size_of(terms_.output_dtype);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    std::span<std::byte> const row(static_cast<std::byte*>(x) + i * bytes, bytes);
    if (rows_[i].pads()) std::fill(row.begin(), row.end(), std::byte{0xff});
    if (!rows_[i].pads()) data_.fill_output(rank_, rows_[i], row);
  }
}

void ThroughputChecker::check_combine(Combined const& got, CombineTerms const& with) const {
  expect_shape(place("combined x"), got.x, terms_.output_dtype, {data_.tokens(rank_), terms_.hidden});
  check_sums(got.x.data<void>(), with);
  expect_equal(place("combined topk_weights given"), with.topk_weights, got.topk_weights.given());
  if (with.topk_weights) check_gradients(got.topk_weights, with.weights_of_all_ranks);
}

void ThroughputChecker::check_sums(void const* x, CombineTerms const& with) const {
  std::size_t const row_bytes = static_cast<std::size_t>(terms_.hidden) * size_of(terms_.output_dtype);
  for (std::int64_t t = 0; t < data_.tokens(rank_); ++t) {
    TokenKey const key{rank_, t};
    SumTerms sum{.parts = contributions(terms_, data_, key), .start = biases(key, with.biases)};
    for (Contribution& part : sum.parts)
      part.weight = with.row_weights ? data_.row_weight(part.maker, part.row) : 1;
    auto const* const seen = static_cast<std::byte const*>(x) + static_cast<std::size_t>(t) * row_bytes;
    expect_sum({"combined x", rank_, terms_.seed, t}, terms_, sum_over_nodes(terms_, data_, sum, rank_), seen);
  }
}

// The sum of a token's biases; empty without any.
std::vector<float> ThroughputChecker::biases(TokenKey const& key, int count) const {
  std::vector<float> sum;
  std::vector<std::byte> bias(static_cast<std::size_t>(terms_.hidden) * size_of(terms_.output_dtype));
  for (int which = 0; which < count; ++which) {
    data_.fill_bias(which, key, bias);
    std::vector<float> const values = decode_row(bias, terms_.output_dtype);
    if (which == 0) sum.assign(values.size(), -0.0F);  // it adds nothing, not even the sign of a zero
    for (std::size_t h = 0; h < values.size(); ++h) sum[h] += values[h];
  }
  return sum;
}

// By the tree of sum_over_nodes(), but from zero and always in f32, which weights are.
float ThroughputChecker::gradient_of_all_ranks(TokenKey const& key, int slot) const {
  std::map<int, float> by_node;
  for (Contribution const& part : contributions(terms_, data_, key))
    by_node[terms_.node_of(part.maker)] += data_.gradient(part.maker, part.row, slot);
  float sum = 0;
  for (auto const& [node, of_node] : by_node) sum += of_node;
  return sum;
}

// Each slot's value comes from the row on the rank of its expert; a slot that is not used gets 0.
void ThroughputChecker::check_gradients(Tensor const& got, bool of_all_ranks) const {
  expect_shape(place("combined topk_weights"), got, DType::f32, {data_.tokens(rank_), terms_.top_k});
  std::vector<float> expected(static_cast<std::size_t>(terms_.top_k));
  for (std::int64_t t = 0; t < data_.tokens(rank_); ++t) {
    TokenKey const key{rank_, t};
    for (int k = 0; k < terms_.top_k; ++k) {
      std::int64_t const id = terms_.by_rank ? -1 : data_.id(key, k);
      Row row{rank_, t};
      float value = 0;
      if (id >= 0) {
        int const maker = rank_of_expert(terms_, id);
        if (terms_.by_expert) row = {rank_, t, k, static_cast<int>(id - experts_of(terms_, maker).begin)};
        value = data_.gradient(maker, row, k);
      }
      if (of_all_ranks) value = gradient_of_all_ranks(key, k);
      expected[static_cast<std::size_t>(k)] = value;
    }
    expect_values({"combined topk_weights", rank_, terms_.seed, t}, expected, got.data<float>() + t * terms_.top_k);
  }
}

}  // namespace switchyard::oracle
