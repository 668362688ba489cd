// Arguments of dispatch that one rank gets wrong: all ranks refuse before anything moves.
#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

using BadDispatchCall = BadCall<DispatchArgs>;

std::vector<std::int64_t> const some_ids(64, 0);
std::vector<float> const some_floats(4096, 1.0F);
std::vector<std::byte> const some_bytes(4096);

// What each case does alone, then a good round trip, all in one buffer.
void refuse_dispatches(std::vector<BadDispatchCall> const& bad_calls) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 4));
    RankInputs const inputs(p, communicator.rank());
    std::size_t const before = buffer.heap_bytes_used();
    for (BadDispatchCall const& bad : bad_calls) {
      DispatchArgs args = inputs.args();
      if (communicator.rank() == culprit) bad.spoil(args);
      expect_refusal(bad.what, culprit, bad.words, [&] { (void)buffer.dispatch(args); });
      check_equal(buffer.heap_bytes_used(), before, bad.what, ": heap in use");
      round_trip(p, buffer);
    }
  });
}

void set_id(DispatchArgs& args, std::vector<std::int64_t>& ids, std::int64_t id) {
  auto const* const good = static_cast<std::int64_t const*>(args.topk_idx.data);
  ids.assign(good, good + args.topk_idx.numel());
  ids[5] = id;
  args.topk_idx.data = ids.data();
}

TEST(BadDispatch, IdsOutOfRange) {
  static std::vector<std::int64_t> ids;
  refuse_dispatches({
      {"id 8 of 8", [](DispatchArgs& a) { set_id(a, ids, 8); }, {"topk_idx", "8"}},
      {"id -2", [](DispatchArgs& a) { set_id(a, ids, -2); }, {"topk_idx", "-2"}},
      {"id 2^40", [](DispatchArgs& a) { set_id(a, ids, 1LL << 40U); }, {"topk_idx", "1099511627776"}},
  });
}

TEST(BadDispatch, X) {
  refuse_dispatches(bad_x<DispatchArgs>());
  refuse_dispatches({{"too many tokens",
                      [](DispatchArgs& a) {
                        a.x = {some_bytes.data(), DType::bf16, {7, 20}};
                        a.topk_idx = {some_ids.data(), DType::i64, {7, 2}};
                        a.topk_weights = {some_floats.data(), DType::f32, {7, 2}};
                      },
                      {"max_tokens", "6", "7"}}});
}

TEST(BadDispatch, Ids) {
  refuse_dispatches(bad_ids<DispatchArgs>());
}

TEST(BadDispatch, Weights) {
  refuse_dispatches(bad_weights<DispatchArgs>());
}

TEST(BadDispatch, Scales) {
  auto const to_fp8 = [](DispatchArgs& a) {
    a.x = {some_bytes.data(), DType::f8e4m3, {6, 20}};
    a.scales = {some_floats.data(), DType::f32, {6, 1}};
  };
  refuse_dispatches({
      {"given for bf16",
       [](DispatchArgs& a) {
         a.scales = {some_floats.data(), DType::f32, {6, 1}};
       },
       {"scales"}},
      {"missing", [=](DispatchArgs& a) { to_fp8(a), a.scales = {}; }, {"scales"}},
      {"2 groups", [=](DispatchArgs& a) { to_fp8(a), a.scales.shape[1] = 2; }, {"scales", "1", "2"}},
      {"5 rows", [=](DispatchArgs& a) { to_fp8(a), a.scales.shape[0] = 5; }, {"scales", "6", "5"}},
      {"f16", [=](DispatchArgs& a) { to_fp8(a), a.scales.dtype = DType::f16; }, {"scales", "f16"}},
      {"null", [=](DispatchArgs& a) { to_fp8(a), a.scales.data = nullptr; }, {"scales"}},
      {"cast of fp8", [=](DispatchArgs& a) { to_fp8(a), a.cast_to_fp8 = true; }, {"cast_to_fp8"}},
  });
}

TEST(BadDispatch, TokenInRank) {
  auto const by_rank = [](DispatchArgs& a) {
    a.topk_idx = a.topk_weights = {};
    a.token_in_rank = {some_bytes.data(), DType::u8, {6, 3}};
  };
  refuse_dispatches({
      {"beside ids",
       [](DispatchArgs& a) {
         a.token_in_rank = {some_bytes.data(), DType::u8, {6, 3}};
       },
       {"token_in_rank"}},
      {"2 ranks", [=](DispatchArgs& a) { by_rank(a), a.token_in_rank.shape[1] = 2; }, {"token_in_rank", "3", "2"}},
      {"5 rows", [=](DispatchArgs& a) { by_rank(a), a.token_in_rank.shape[0] = 5; }, {"token_in_rank", "6", "5"}},
      {"i32", [=](DispatchArgs& a) { by_rank(a), a.token_in_rank.dtype = DType::i32; }, {"token_in_rank", "i32"}},
      {"expanded", [=](DispatchArgs& a) { by_rank(a), a.layout = OutputLayout::expanded; }, {"topk_idx"}},
      {"worst case", [=](DispatchArgs& a) { by_rank(a), a.num_worst_tokens = 100; }, {"topk_idx"}},
  });
}

TEST(BadDispatch, Options) {
  refuse_dispatches({
      {"alignment 0", [](DispatchArgs& a) { a.expert_alignment = 0; }, {"expert_alignment", "0"}},
      {"alignment -4", [](DispatchArgs& a) { a.expert_alignment = -4; }, {"expert_alignment", "-4"}},
      {"worst case -1", [](DispatchArgs& a) { a.num_worst_tokens = -1; }, {"num_worst_tokens", "-1"}},
      {"workers -1", [](DispatchArgs& a) { a.num_workers = -1; }, {"num_workers", "-1"}},
  });
}

// This build has no GPU: either "unsupported" or "invalid" is right, but on every rank.
TEST(BadDispatch, ViewsOfAGpu) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    RankInputs const inputs(p, communicator.rank());
    for (auto const member : {&DispatchArgs::x, &DispatchArgs::topk_idx, &DispatchArgs::topk_weights}) {
      DispatchArgs args = inputs.args();
      if (communicator.rank() == culprit) (args.*member).device = Device::cuda;
      try {
        (void)buffer.dispatch(args);
        throw CheckFailed("a view of a GPU was taken");
      } catch (Error const& error) {
        check(error.code() == ErrorCode::invalid_argument || error.code() == ErrorCode::unsupported, error.what());
        check_names(error, {"rank 1", "cuda"});
      }
      round_trip(p, buffer);
    }
  });
}

TEST(BadDispatch, WrongHandles) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 4));
    Buffer other(communicator, options_for(p, 4));
    RankInputs const inputs(p, communicator.rank());
    Handle const good = buffer.dispatch(inputs.args()).handle;
    Handle const foreign = other.dispatch(inputs.args()).handle;
    auto const refused = [&](char const* what, std::function<void(DispatchArgs&)> const& spoil) {
      DispatchArgs args = inputs.cached_args(good);
      if (communicator.rank() == culprit) spoil(args);
      expect_refusal(what, culprit, {"handle"}, [&] { (void)buffer.dispatch(args); });
      round_trip(p, buffer);
    };
    refused("another buffer's", [&](DispatchArgs& a) { a.handle = foreign; });
    refused("of 6 tokens for 5", [&](DispatchArgs& a) { a.x.shape[0] = 5; });
    std::vector<std::uint8_t> const to_all(index(p.tokens(communicator.rank()) * c.ranks), 1);
    ConstTensorView const mask{to_all.data(), DType::u8, {p.tokens(communicator.rank()), c.ranks}};
    refused("beside token_in_rank", [&](DispatchArgs& a) { a.token_in_rank = mask; });
    DispatchArgs by_mask = inputs.cached_args({});
    by_mask.token_in_rank = mask;
    Handle const without_ids = buffer.dispatch(by_mask).handle;
    refused("ids beside the handle of a mask", [&](DispatchArgs& a) {
      a.handle = without_ids;
      a.topk_idx = inputs.ids();
    });
  });
}

}  // namespace
}  // namespace switchyard::test
