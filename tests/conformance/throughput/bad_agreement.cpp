// Ranks that do not agree with one another: no single one is wrong, all of them refuse.
#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

template <typename Action>
void expect_disagreement(std::string const& what, std::initializer_list<std::string_view> words, Action&& action) {
  auto const error = expect_throw<InvalidArgument>(what, action);
  check_names(error, {"rank"});
  check_names(error, words);
}

// `prepare` makes the arguments of a rank; then a good round trip.
void disagree_by(std::string const& what, std::initializer_list<std::string_view> words,
                 std::function<void(DispatchArgs&, int rank)> const& prepare) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, what, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 4));
    RankInputs const inputs(p, communicator.rank());
    DispatchArgs args = inputs.args();
    prepare(args, communicator.rank());
    expect_disagreement(what, words, [&] { (void)buffer.dispatch(args); });
    round_trip(p, buffer);
  });
}

// Spoils the arguments of `who`, alone.
void disagree(std::string const& what, std::initializer_list<std::string_view> words,
              std::function<void(DispatchArgs&)> const& spoil, int who = culprit) {
  disagree_by(what, words, [&](DispatchArgs& args, int rank) {
    if (rank == who) spoil(args);
  });
}

TEST(BadAgreement, DispatchOptions) {
  for (int const who : {0, 2}) {
    disagree(
        "dtype", {"x", "bf16", "f16"}, [](DispatchArgs& a) { a.x.dtype = DType::f16; }, who);
    disagree(
        "cast", {"cast_to_fp8"}, [](DispatchArgs& a) { a.cast_to_fp8 = true; }, who);
    disagree(
        "layout", {"layout"}, [](DispatchArgs& a) { a.layout = OutputLayout::expanded; }, who);
    disagree(
        "alignment", {"expert_alignment", "1", "8"}, [](DispatchArgs& a) { a.expert_alignment = 8; }, who);
    disagree(
        "worst case", {"num_worst_tokens", "100"}, [](DispatchArgs& a) { a.num_worst_tokens = 100; }, who);
    disagree(
        "weights", {"topk_weights"}, [](DispatchArgs& a) { a.topk_weights = {}; }, who);
  }
}

TEST(BadAgreement, DtypeOfIds) {
  static std::vector<std::int32_t> const ids(12, 0);
  disagree("ids", {"topk_idx", "i64", "i32"}, [](DispatchArgs& a) {
    a.topk_idx = {ids.data(), DType::i32, {6, 2}};
  });
}

TEST(BadAgreement, DtypeOfScalesOfEqualBytes) {
  static std::vector<std::byte> const x(6 * 20);
  static std::vector<std::int32_t> const words(6, 0);
  disagree_by("scales", {"scales", "4 bytes of f32 a token", "4 bytes of i32 a token"},
              [](DispatchArgs& args, int rank) {
                args.x = {x.data(), DType::f8e4m3, {6, 20}};
                args.scales = {words.data(), rank == culprit ? DType::i32 : DType::f32, {6, 1}};
              });
}

TEST(BadAgreement, WayOfRouting) {
  static std::vector<std::uint8_t> const everywhere(18, 1);
  disagree("routing", {"token_in_rank"}, [](DispatchArgs& a) {
    a.topk_idx = a.topk_weights = {};
    a.token_in_rank = {everywhere.data(), DType::u8, {6, 3}};
  });
}

void options_differ(char const* name, std::function<void(BufferOptions&)> const& spoil) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, name, [&](Communicator& communicator) {
    BufferOptions options = options_for(p);
    if (communicator.rank() == culprit) spoil(options);
    expect_disagreement(name, {name}, [&] { Buffer const buffer(communicator, options); });
    Buffer buffer(communicator, options_for(p));
    round_trip(p, buffer);
  });
}

TEST(BadAgreement, BufferOptions) {
  options_differ("max_tokens", [](BufferOptions& o) { ++o.max_tokens; });
  options_differ("f32_partials", [](BufferOptions& o) { o.f32_partials = true; });
  options_differ("hidden", [](BufferOptions& o) { ++o.hidden; });
  options_differ("num_experts", [](BufferOptions& o) { ++o.num_experts; });
  options_differ("top_k", [](BufferOptions& o) { ++o.top_k; });
}

TEST(BadAgreement, BufferOptionsThatDifferNameRankAndPhase) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    BufferOptions options = options_for(p);
    if (communicator.rank() == culprit) ++options.hidden;
    auto const error =
        expect_throw<InvalidArgument>("another hidden", [&] { Buffer const buffer(communicator, options); });
    check_equal(error.rank(), culprit, "rank of the error");
    check_equal(error.phase(), std::string("construction"), "phase of the error");
  });
}

void options_refused(char const* name, std::function<void(BufferOptions&)> const& spoil, bool all) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, text(name, all ? " on all ranks" : " on one rank"), [&](Communicator& communicator) {
    BufferOptions options = options_for(p);
    if (all || communicator.rank() == culprit) spoil(options);
    expect_disagreement(name, {name}, [&] { Buffer const buffer(communicator, options); });
    Buffer buffer(communicator, options_for(p));
    round_trip(p, buffer);
  });
}

TEST(BadAgreement, BufferOptionsOutOfRange) {
  for (bool const all : {true, false}) {
    options_refused(
        "max_tokens", [](BufferOptions& o) { o.max_tokens = -1; }, all);
    options_refused(
        "hidden", [](BufferOptions& o) { o.hidden = 0; }, all);
    options_refused(
        "num_experts", [](BufferOptions& o) { o.num_experts = 0; }, all);
    options_refused(
        "top_k", [](BufferOptions& o) { o.top_k = 0; }, all);
    options_refused(
        "top_k", [](BufferOptions& o) { o.top_k = 65; }, all);
    options_refused(
        "num_workers", [](BufferOptions& o) { o.num_workers = -1; }, all);
    options_refused(
        "timeout", [](BufferOptions& o) { o.timeout = std::chrono::milliseconds::max(); }, all);
  }
}

TEST(BadAgreement, DispatchAgainstCombine) {
  for (int const who : {0, 1, 2}) {
    Case const c = refusal_case();
    Problem const p = make_problem(c);
    run_ranks(c.launch, c.ranks, text("rank ", who, " combines"), [&](Communicator& communicator) {
      Buffer buffer(communicator, options_for(p, 4));
      RankInputs const inputs(p, communicator.rank());
      Prepared prepared(p, buffer);
      expect_disagreement("mixed calls", {"dispatch", "combine"}, [&] {
        if (communicator.rank() == who) (void)buffer.combine(prepared.args(p));
        if (communicator.rank() != who) (void)buffer.dispatch(inputs.args());
      });
      round_trip(p, buffer);
    });
  }
}

TEST(BadAgreement, CombineOptions) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 6));
    Prepared prepared(p, buffer);
    Handle const later = buffer.dispatch(RankInputs(p, communicator.rank()).args()).handle;
    auto const differ = [&](char const* word, std::function<void(CombineArgs&)> const& spoil) {
      CombineArgs args = prepared.args(p);
      if (communicator.rank() == culprit) spoil(args);
      expect_disagreement(word, {word}, [&] { (void)buffer.combine(args); });
      round_trip(p, buffer);
    };
    differ("f16", [](CombineArgs& a) { a.x.dtype = a.bias0.dtype = a.bias1.dtype = a.out.dtype = DType::f16; });
    differ("topk_weights", [](CombineArgs& a) { a.topk_weights = {}; });
    differ("topk_weights", [](CombineArgs& a) { a.weights_of_all_ranks = true; });
    differ("topk_weights", [](CombineArgs& a) {
      a.weights_of_all_ranks = true;
      a.topk_weights.shape[1] = 1;
    });
    differ("row_weights", [](CombineArgs& a) { a.row_weights = {}; });
    differ("handle", [&](CombineArgs& a) { a.handle = later; });
  });
}

}  // namespace
}  // namespace switchyard::test
