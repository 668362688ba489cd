#include "support/flow.hpp"

#include <algorithm>

namespace switchyard::test {
namespace {

// Room for `results` dispatches and their combines.
std::size_t heap_for(Problem const& p, int results) {
  std::size_t rows = 0;
  std::size_t tokens = 0;
  for (int rank = 0; rank < p.the.ranks; ++rank) {
    rows = std::max(rows, DispatchChecker(p, rank).rows().size());
    tokens = std::max(tokens, index(p.tokens(rank)));
  }
  std::size_t const row = index(p.the.hidden) * 4 + index(p.the.groups()) * 4 + index(p.the.top_k) * 12 + 64;
  return (std::size_t{4} << 20U) + static_cast<std::size_t>(results) * 3 * (rows + tokens + 8) * row;
}

}  // namespace

BufferOptions options_for(Problem const& p, int results) {
  BufferOptions options;
  options.max_tokens = p.the.tokens;
  options.hidden = p.the.hidden;
  options.num_experts = p.the.experts;
  options.top_k = p.the.top_k;
  options.num_workers = p.the.workers;
  options.heap_bytes = heap_for(p, results);
  options.f32_partials = p.the.f32_partials;
  return options;
}

void round_trip(Problem const& p, Buffer& buffer, CombineExtras const& extras) {
  int const rank = buffer.communicator().rank();
  RankInputs const inputs(p, rank);
  Dispatched const received = buffer.dispatch(inputs.args());
  DispatchChecker(p, rank).check_dispatch(received);
  CombineInputs const outputs(p, rank, extras);
  Tensor const x = buffer.allocate(p.the.combine_dtype, {outputs.rows(), p.the.hidden});
  outputs.write_rows(x.data<void>());
  outputs.check_result(buffer.combine(outputs.args(x, received.handle)));
}

bool run_case(Case const& c) {
  Problem const problem = make_problem(c);
  CombineExtras const extras{.biases = 0, .row_weights = false, .topk_weights = !c.by_rank && c.weights};
  return run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    round_trip(problem, buffer, extras);
  });
}

void run_cases(std::vector<Case> const& cases) {
  for (Case const& c : cases) {
    if (!run_case(c)) return;
  }
}

}  // namespace switchyard::test
