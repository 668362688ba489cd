// Arguments of combine that one rank gets wrong: all ranks refuse before anything moves.
#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

using BadCombineCall = BadCall<CombineArgs>;

void refuse_combines(std::vector<BadCombineCall> const& bad_calls) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 4));
    Prepared prepared(p, buffer);
    std::size_t const before = buffer.heap_bytes_used();
    for (BadCombineCall const& bad : bad_calls) {
      CombineArgs args = prepared.args(p);
      if (communicator.rank() == culprit) bad.spoil(args);
      expect_refusal(bad.what, culprit, bad.words, [&] { (void)buffer.combine(args); });
      check_equal(buffer.heap_bytes_used(), before, bad.what, ": heap in use");
      prepared.outputs.check_weights(buffer.combine(prepared.args(p)));
      round_trip(p, buffer);
    }
  });
}

TEST(BadCombine, X) {
  refuse_combines({
      {"a row less", [](CombineArgs& a) { --a.x.shape[0]; }, {"x"}},
      {"hidden 19", [](CombineArgs& a) { a.x.shape[1] = 19; }, {"x", "20", "19"}},
      {"fp8", [](CombineArgs& a) { a.x.dtype = DType::f8e4m3; }, {"x", "f8e4m3"}},
      {"i32", [](CombineArgs& a) { a.x.dtype = DType::i32; }, {"x", "i32"}},
      {"1 dimension", [](CombineArgs& a) { a.x.ndim = 1; }, {"x"}},
      {"elements apart", [](CombineArgs& a) { a.x.strides[1] = 2; }, {"x"}},
      {"null", [](CombineArgs& a) { a.x.data = nullptr; }, {"x"}},
      {"not given", [](CombineArgs& a) { a.x = {}; }, {"x"}},
  });
}

TEST(BadCombine, Weights) {
  refuse_combines({
      {"gradients of f16", [](CombineArgs& a) { a.topk_weights.dtype = DType::f16; }, {"topk_weights", "f16"}},
      {"gradients: a row less", [](CombineArgs& a) { --a.topk_weights.shape[0]; }, {"topk_weights"}},
      {"gradients: top_k 1", [](CombineArgs& a) { a.topk_weights.shape[1] = 1; }, {"topk_weights", "2", "1"}},
      {"all ranks: 65 columns",
       [](CombineArgs& a) {
         a.weights_of_all_ranks = true;
         a.topk_weights.shape[1] = 65;
       },
       {"topk_weights", "64", "65"}},
      {"all ranks: 1 dimension",
       [](CombineArgs& a) {
         a.weights_of_all_ranks = true;
         a.topk_weights.ndim = 1;
       },
       {"topk_weights"}},
      {"row weights of i32", [](CombineArgs& a) { a.row_weights.dtype = DType::i32; }, {"row_weights", "i32"}},
      {"row weights: a row less", [](CombineArgs& a) { --a.row_weights.shape[0]; }, {"row_weights"}},
      {"row weights: null", [](CombineArgs& a) { a.row_weights.data = nullptr; }, {"row_weights"}},
  });
}

TEST(BadCombine, BiasesAndOut) {
  refuse_combines({
      {"bias0 of f32", [](CombineArgs& a) { a.bias0.dtype = DType::f32; }, {"bias0", "bf16", "f32"}},
      {"bias0 of 5 rows", [](CombineArgs& a) { a.bias0.shape[0] = 5; }, {"bias0", "6", "5"}},
      {"bias1 of hidden 19", [](CombineArgs& a) { a.bias1.shape[1] = 19; }, {"bias1", "20", "19"}},
      {"bias1 null", [](CombineArgs& a) { a.bias1.data = nullptr; }, {"bias1"}},
      {"out of f32", [](CombineArgs& a) { a.out.dtype = DType::f32; }, {"out", "bf16", "f32"}},
      {"out of 5 rows", [](CombineArgs& a) { a.out.shape[0] = 5; }, {"out", "6", "5"}},
      {"out null", [](CombineArgs& a) { a.out.data = nullptr; }, {"out"}},
      {"workers -1", [](CombineArgs& a) { a.num_workers = -1; }, {"num_workers", "-1"}},
  });
}

TEST(BadCombine, NoHandle) {
  refuse_combines({{"no handle", [](CombineArgs& a) { a.handle = {}; }, {"handle"}}});
}

TEST(BadCombine, HandleOfAnotherBuffer) {
  Case const c = refusal_case();
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 4));
    Buffer other(communicator, options_for(p, 4));
    Prepared prepared(p, buffer);
    Handle const foreign = Prepared(p, other).received.handle;
    CombineArgs args = prepared.args(p);
    if (communicator.rank() == culprit) args.handle = foreign;
    expect_refusal("another buffer's handle", culprit, {"handle"}, [&] { (void)buffer.combine(args); });
    round_trip(p, buffer);
  });
}

}  // namespace
}  // namespace switchyard::test
