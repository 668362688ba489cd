// Dispatches along the routing of an earlier one.
#pragma once

#include <vector>

#include "support/flow.hpp"

namespace switchyard::test {

// The same tokens to the same places, but other values.
inline Problem with_other_values(Problem const& problem) {
  Problem other = problem;
  for (int rank = 0; rank < problem.the.ranks; ++rank) {
    Random random(mix(problem.the.seed, 4711, rank));
    RankInput& input = other.inputs[index(rank)];
    input.x = random_values(problem.the.dtype, input.tokens * problem.the.hidden, random);
    if (!input.scales.empty()) input.scales = random_floats(input.tokens * problem.the.groups(), random);
    if (!input.weights.empty()) input.weights = random_floats(input.tokens * problem.the.top_k, random);
  }
  return other;
}

// `with_ids`: ids and weights travel again.
inline void cached_round_trip(Problem const& p, Buffer& buffer, Handle const& handle, bool with_ids = false) {
  int const rank = buffer.communicator().rank();
  RankInputs const inputs(p, rank);
  DispatchArgs args = inputs.cached_args(handle);
  if (with_ids) {
    args.topk_idx = inputs.args().topk_idx;
    args.topk_weights = inputs.args().topk_weights;
  }
  Dispatched const received = buffer.dispatch(args);
  DispatchChecker(p, rank, with_ids ? Travel::cached_with_ids : Travel::cached).check_dispatch(received);
  CombineInputs const outputs(p, rank, {.topk_weights = !p.the.by_rank});
  std::vector<std::byte> x(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype));
  outputs.write_rows(x.data());
  ConstTensorView const view{x.data(), p.the.combine_dtype, {outputs.rows(), p.the.hidden}};
  outputs.check_result(buffer.combine(outputs.args(view, received.handle)));
}

// Dispatches anew, and then along that handle.
inline void run_cached(Case const& c) {
  Problem const first = make_problem(c);
  Problem const second = with_other_values(first);
  run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(first, 3));
    RankInputs const inputs(first, communicator.rank());
    Handle const handle = buffer.dispatch(inputs.args()).handle;
    cached_round_trip(second, buffer, handle);
    cached_round_trip(first, buffer, handle);
    if (!c.by_rank) cached_round_trip(second, buffer, handle, true);
  });
}

}  // namespace switchyard::test
