// What a low-latency call must give: known values, and what the checker must see.
#include "oracle/low_latency_check.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "call/low_latency_engine.hpp"
#include "oracle/numbers.hpp"
#include "oracle/sent.hpp"
#include "support/low_latency_problem.hpp"

namespace switchyard::test {
namespace {

using oracle::Mismatch;
using oracle::SumTerms;
using oracle::Terms;
using oracle::TokenBytes;

TEST(LowLatencyOracle, PowersOfTwoAreTheSmallestThatDo) {
  for (auto const& [amax, exponent] : std::vector<std::pair<float, int>>{{448.0F, 0},
                                                                         {448.25F, 1},
                                                                         {447.0F, 0},
                                                                         {224.0F, -1},
                                                                         {224.125F, 0},
                                                                         {896.0F, 1},
                                                                         {0.0F, -22},
                                                                         {1.0F, -8}}) {
    std::vector<float> const row{-amax, amax / 2};
    for (SendCast const cast : {SendCast::fp8_pow2, SendCast::fp8_ue8m0}) {
      TokenBytes const sent = oracle::cast_token(std::as_bytes(std::span(row)), DType::f32, cast);
      ASSERT_EQ(sent.scales.size(), 4U);
      float scale = 0;
      if (cast == SendCast::fp8_ue8m0) scale = std::ldexp(1.0F, std::to_integer<int>(sent.scales[0]) - 127);
      if (cast == SendCast::fp8_pow2) std::memcpy(&scale, sent.scales.data(), sizeof scale);
      EXPECT_EQ(scale, std::ldexp(1.0F, exponent)) << "amax " << amax;
      EXPECT_EQ(oracle::get(sent.x.data(), DType::f8e4m3, 0),
                oracle::decode(oracle::encode(-amax / scale, oracle::e4m3_format), oracle::e4m3_format));
    }
  }
}

TEST(LowLatencyOracle, SumsGoBySlots) {
  SlotProblem p = make_slot_problem({.ranks = 2, .tokens = 1, .counts = Tokens::equal, .hidden = 3, .experts = 4});
  p.base.inputs[0].ids = {3, -1, 3};
  p.base.inputs[0].weights = {0.5F, 7.0F, 0.25F};
  Terms const terms = terms_of(p.the);
  auto const parts = slot_contributions(terms, p, {0, 0});
  ASSERT_EQ(parts.size(), 2U);
  // A row for each of the two slots, which experts may make different things of.
  std::vector<std::byte> first(6);
  std::vector<std::byte> second(6);
  p.fill_output(1, {.source = 0, .token = 0, .slot = 0, .expert = 1}, first);
  p.fill_output(1, {.source = 0, .token = 0, .slot = 2, .expert = 1}, second);
  EXPECT_NE(first, second);
  std::vector<float> const sum = sum_of(terms, p, {.parts = parts, .from_zero = true});
  for (std::size_t h = 0; h < 3; ++h) {
    EXPECT_EQ(sum[h], oracle::get(first.data(), DType::bf16, h) * 0.5F +
                          oracle::get(second.data(), DType::bf16, h) * 0.25F);
  }
  // The only expert of this token is on rank 1. What a masked rank made adds nothing.
  std::vector<std::byte> const full = oracle::encode_row(sum, DType::bf16);
  std::vector<std::byte> const nothing(full.size());
  oracle::LowLatencyChecker checker(terms, slot_terms(p.the), p, 0);
  auto const mismatch = [&](std::vector<std::byte> const& out) {
    return oracle::mismatch_of([&] { checker.check_combined({out.data(), DType::bf16, {1, 3}}); });
  };
  EXPECT_EQ(mismatch(full), std::nullopt);
  EXPECT_NE(mismatch(nothing), std::nullopt);
  checker.expect({oracle::Presence::here, oracle::Presence::gone});
  EXPECT_EQ(mismatch(nothing), std::nullopt);
  EXPECT_NE(mismatch(full), std::nullopt);
}

// A row in LogFMT-10 may be off by what the code may miss, and no more.
TEST(LowLatencyOracle, CodedSumsAreClose) {
  SlotProblem const p =
      make_slot_problem({.counts = Tokens::equal, .hidden = 300, .coding = CombineCoding::logfmt10});
  Terms const terms = terms_of(p.the);
  SumTerms sum{.parts = slot_contributions(terms, p, {0, 0}), .from_zero = true, .coding = p.the.coding};
  ASSERT_FALSE(sum.parts.empty());
  std::vector<float> values = sum_of(terms, p, sum);
  auto const check = [&] { expect_close({}, terms, p, sum, oracle::encode_row(values, DType::bf16).data()); };
  EXPECT_EQ(oracle::mismatch_of(check), std::nullopt);
  values[299] *= 1.1F;
  EXPECT_NE(oracle::mismatch_of(check), std::nullopt);
}

Tensor make_tensor(DType dtype, std::initializer_list<std::int64_t> shape) {
  TensorView view(nullptr, dtype, shape);
  auto const bytes =
      std::make_shared<std::vector<std::byte>>(index(view.numel()) * size_of(dtype) + 1, std::byte{0x5a});
  view.data = bytes->data();
  return {view, bytes};
}

// Made from the reference, as an engine would: sources in any order within an expert.
class MadeUp {
 public:
  MadeUp(SlotProblem const& p, int rank, std::uint64_t seed) : p_(p), rank_(rank), random_(seed) {
    SlotCase const& c = p.the;
    std::int64_t const outer = c.by_expert() ? oracle::experts_of(p.the, rank).count() : c.ranks;
    std::int64_t const rows = c.by_expert() ? c.ranks * c.tokens : c.tokens;
    seen.x = make_tensor(c.received_dtype(), {outer, rows, c.width()});
    seen.counts = make_tensor(DType::i32, {outer});
    seen.source_token = make_tensor(DType::i32, {outer, rows});
    if (c.scaled()) make_scales(outer, rows);
    seen.handle = LowLatencyHandle(std::make_shared<detail::Lease>());
    if (c.by_expert()) fill_experts();
    if (!c.by_expert()) fill_sources();
  }
  LowLatencyReceived seen;

 private:
  void make_scales(std::int64_t outer, std::int64_t rows) {
    SlotCase const& c = p_.the;
    seen.scales = make_tensor(c.scale_dtype(), {outer, rows, c.scale_width()});
    if (!c.by_expert() || c.opaque()) return;
    TensorView view = seen.scales.view();
    view.strides = {rows * c.scale_width(), 1, rows};
    seen.scales = {view, seen.scales.owner()};
  }

  void fill_experts() {
    int const ranks = p_.the.ranks;
    std::int64_t const local_experts = seen.counts.size(0);
    seen.ranges = make_tensor(DType::i64, {local_experts, ranks});
    for (std::int64_t local = 0; local < local_experts; ++local) {
      std::int64_t at = 0;
      int const expert = oracle::experts_of(p_.the, rank_).begin + static_cast<int>(local);
      std::int64_t const first = random_.below(ranks);
      for (std::int64_t i = 0; i < ranks; ++i) {
        int const source = static_cast<int>((first + i) % ranks);
        auto const rows = slot_rows(terms_of(p_.the), p_, source, {expert, expert + 1});
        auto const count = static_cast<std::int64_t>(rows.size());
        seen.ranges.data<std::int64_t>()[local * ranks + source] = count > 0 ? at << 32 | count : 0;
        for (oracle::Row const& row : rows) put_row(local * ranks * p_.the.tokens + at++, source, row.token);
      }
      seen.counts.data<std::int32_t>()[local] = static_cast<std::int32_t>(at);
    }
  }

  void fill_sources() {
    SlotCase const& c = p_.the;
    seen.topk_idx = make_tensor(DType::i32, {c.ranks, c.tokens, c.top_k});
    if (c.weights) seen.topk_weights = make_tensor(DType::f32, {c.ranks, c.tokens, c.top_k});
    for (int source = 0; source < c.ranks; ++source) {
      auto const rows = slot_rows(terms_of(p_.the), p_, source, oracle::experts_of(p_.the, rank_));
      seen.counts.data<std::int32_t>()[source] = static_cast<std::int32_t>(rows.size());
      std::int64_t slot = source * c.tokens;
      for (oracle::Row const& row : rows) put_slots(slot++, source, row.token);
    }
  }

  void put_slots(std::int64_t slot, int source, std::int64_t token) {
    put_row(slot, source, token);
    for (int k = 0; k < p_.the.top_k; ++k) {
      auto const id = static_cast<std::int32_t>(local_id(terms_of(p_.the), p_, {source, token}, k, rank_));
      seen.topk_idx.data<std::int32_t>()[slot * p_.the.top_k + k] = id;
      float const weight = p_.weights({source, token})[index(k)];
      if (p_.the.weights) seen.topk_weights.data<float>()[slot * p_.the.top_k + k] = id < 0 ? 0 : weight;
    }
  }

  void put_row(std::int64_t slot, int source, std::int64_t token) {
    TokenBytes const sent = sent_token(terms_of(p_.the), p_, {source, token});
    seen.source_token.data<std::int32_t>()[slot] = static_cast<std::int32_t>(token);
    std::memcpy(seen.x.data<std::byte>() + index(slot) * sent.x.size(), sent.x.data(), sent.x.size());
    if (!p_.the.scaled()) return;
    TensorView const v = seen.scales.view();
    std::size_t const element = size_of(v.dtype);
    for (std::size_t at = 0; at < sent.scales.size(); at += element) {
      std::int64_t const rows = v.size(1);
      std::int64_t const to = slot / rows * v.stride(0) + slot % rows * v.stride(1) +
                              static_cast<std::int64_t>(at / element) * v.stride(2);
      std::memcpy(seen.scales.data<std::byte>() + index(to) * element, sent.scales.data() + at,
                  std::min(element, sent.scales.size() - at));
    }
  }

  SlotProblem const& p_;
  int rank_;
  Random random_;
};

std::vector<SlotCase> cases_to_check() {
  std::vector<SlotCase> cases;
  for (SlotLayout const layout : {SlotLayout::expert_major, SlotLayout::rank_major}) {
    SlotCase const c{.tokens = 5, .counts = Tokens::equal, .hidden = 700, .layout = layout};
    cases.push_back(c);
    cases.push_back(c);
    cases.back().cast = SendCast::fp8_ue8m0;
    cases.push_back(c);
    cases.back().cast = SendCast::fp8;
    cases.push_back(c);
    cases.back().dtype = DType::u8;
    cases.back().row_bytes = 9;
    cases.back().scale_bytes = 3;
  }
  return cases;
}

TEST(LowLatencyOracle, TheCheckerTakesWhatIsRight) {
  for (SlotCase const& c : cases_to_check()) {
    SlotProblem const p = make_slot_problem(c);
    for (int rank = 0; rank < c.ranks; ++rank) {
      MadeUp const made(p, rank, 3);
      EXPECT_NO_THROW(SlotChecker(p, rank).check_received(made.seen)) << c;
    }
  }
}

using Spoil = std::function<void(LowLatencyReceived&, std::int64_t slot)>;

void expect_seen(std::string const& what, Spoil const& spoil) {
  for (SlotCase const& c : cases_to_check()) {
    SlotProblem const p = make_slot_problem(c);
    MadeUp made(p, 0, 4);
    SlotChecker const checker(p, 0);
    auto const rows = checker.arrivals(made.seen);
    ASSERT_FALSE(rows.empty());
    spoil(made.seen, rows[rows.size() / 2].slot);
    EXPECT_THROW(checker.check_received(made.seen), Mismatch) << what << " " << c;
  }
}

TEST(LowLatencyOracle, TheCheckerSeesWhatIsWrong) {
  expect_seen("a byte of x", [](LowLatencyReceived& r, std::int64_t slot) {
    std::int64_t const row = r.x.size(2) * static_cast<std::int64_t>(size_of(r.x.dtype()));
    r.x.data<std::byte>()[(slot + 1) * row - 1] ^= std::byte{1};
  });
  expect_seen("a source token",
              [](LowLatencyReceived& r, std::int64_t slot) { ++r.source_token.data<std::int32_t>()[slot]; });
  expect_seen("a count", [](LowLatencyReceived& r, std::int64_t) { ++r.counts.data<std::int32_t>()[0]; });
  expect_seen("a scale, an id or a range", [](LowLatencyReceived& r, std::int64_t slot) {
    Tensor const& v = r.scales;
    std::int64_t const row = r.source_token.size(1);
    if (v.given())
      v.data<std::byte>()[index(slot / row * v.view().stride(0) + slot % row * v.view().stride(1)) *
                          size_of(v.dtype())] ^= std::byte{1};
    else if (r.ranges.given())
      --r.ranges.data<std::int64_t>()[0];
    else
      r.topk_idx.data<std::int32_t>()[slot * r.topk_idx.size(2)] += 1;
  });
}

TEST(LowLatencyOracle, TheCheckerSeesRangesThatOverlap) {
  SlotProblem const p = make_slot_problem({.counts = Tokens::equal, .routing = Routing::one_expert});
  MadeUp made(p, 0, 4);
  for (int source = 0; source < p.the.ranks; ++source)
    made.seen.ranges.data<std::int64_t>()[source] &= 0xffffffff;  // all of expert 0 begin at its first row
  EXPECT_THROW(SlotChecker(p, 0).check_received(made.seen), Mismatch);
}

TEST(LowLatencyOracle, TheCheckerSeesASumThatIsWrong) {
  SlotProblem const p = make_slot_problem({.counts = Tokens::equal});
  Tensor const out = make_tensor(DType::bf16, {p.tokens(1), p.the.hidden});
  for (std::int64_t t = 0; t < p.tokens(1); ++t) {
    SumTerms const sum{.parts = slot_contributions(terms_of(p.the), p, {1, t}), .from_zero = true};
    auto const row = oracle::encode_row(sum_of(terms_of(p.the), p, sum), DType::bf16);
    std::memcpy(out.data<std::byte>() + index(t) * row.size(), row.data(), row.size());
  }
  SlotChecker const checker(p, 1);
  EXPECT_NO_THROW(checker.check_combined(out));
  out.data<std::byte>()[index(out.view().numel()) * 2 - 2] ^= std::byte{1};
  EXPECT_THROW(checker.check_combined(out), Mismatch);
}

}  // namespace
}  // namespace switchyard::test
