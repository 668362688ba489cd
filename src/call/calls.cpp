#include "call/calls.hpp"

namespace switchyard {

Facts facts_of(DispatchCall const& call) {
  DispatchArgs const& args = call.args;
  bool const cached = call.fresh == nullptr;
  Facts facts{};
  fact(facts, Fact::operation) = 1;
  fact(facts, Fact::dtype) = static_cast<std::int64_t>(args.x.dtype);
  fact(facts, Fact::hidden) = args.x.size(1);
  fact(facts, Fact::routing) = cached ? 3 : args.token_in_rank.given() ? 2 : 1;
  fact(facts, Fact::top_k) = call.routing->top_k;
  fact(facts, Fact::topk_dtype) = args.topk_idx.given() ? static_cast<std::int64_t>(args.topk_idx.dtype) : -1;
  fact(facts, Fact::topk_weights) = args.topk_weights.given() ? 1 : 0;
  fact(facts, Fact::scales) = static_cast<std::int64_t>(call.shape.scale_bytes);
  fact(facts, Fact::cast) = args.cast_to_fp8 ? 1 : 0;
  fact(facts, Fact::layout) = static_cast<std::int64_t>(call.routing->layout);
  fact(facts, Fact::alignment) = call.routing->expert_alignment;
  fact(facts, Fact::worst_tokens) = args.num_worst_tokens;
  fact(facts, Fact::range) = call.range;
  fact(facts, Fact::dispatch) = cached ? static_cast<std::int64_t>(call.routing->dispatch) : -1;
  return facts;
}

Facts facts_of(CombineCall const& call) {
  CombineArgs const& args = call.args;
  Facts facts{};
  fact(facts, Fact::operation) = 2;
  fact(facts, Fact::dtype) = static_cast<std::int64_t>(args.x.dtype);
  fact(facts, Fact::hidden) = args.x.size(1);
  fact(facts, Fact::topk_weights) = args.topk_weights.given() ? 1 : 0;
  fact(facts, Fact::row_weights) = args.row_weights.given() ? 1 : 0;
  fact(facts, Fact::dispatch) =
      args.handle.given() ? static_cast<std::int64_t>(args.handle.routing()->dispatch) : -1;
  return facts;
}

std::uint64_t digest_of(Facts const& facts) {
  std::uint64_t digest = 0xcbf2'9ce4'8422'2325;  // FNV-1a, by words
  for (std::int64_t const value : facts) {
    digest = (digest ^ static_cast<std::uint64_t>(value)) * 0x100'0000'01b3;
    digest ^= digest >> 29;
  }
  return digest != 0 ? digest : 1;
}

}  // namespace switchyard
