#include "call/hosted/combine_streams.hpp"

#include <utility>

namespace switchyard {

namespace {

// By token, how many weights go with its row: one for each of its slots on the node, which `slots_of(token)`
// counts, or one for each column where all ranks' are summed. None where no weights travel.
template <typename SlotsOf>
std::vector<std::uint8_t> weights_by_token(CombineCall const& call, std::size_t tokens, SlotsOf const& slots_of) {
  std::vector<std::uint8_t> weights;
  if (!call.out_weights.given()) return weights;
  bool const all = call.args.weights_of_all_ranks;
  for (std::size_t token = 0; token < tokens; ++token)
    weights.push_back(
        static_cast<std::uint8_t>(all ? static_cast<std::size_t>(call.out_weights.size(1)) : slots_of(token)));
  return weights;
}

// Of a row that crosses.
std::size_t bytes_of_sum(PullTask const& task) {
  ConstTensorView const& x = task.call.args.x;
  return static_cast<std::size_t>(x.size(1)) * (task.f32_partials ? sizeof(float) : size_of(x.dtype));
}

}  // namespace

std::vector<SumsBack> sums_back(PullTask const& task) {
  std::vector<SumsBack> all;
  auto const served = task.crossing->served();
  for (std::size_t i = 0; i < served.size(); ++i) {
    scale_out::PlacedTokens const& tokens = task.call.args.handle.routing()->served[i].placed;
    auto const slots_of = [&](std::size_t token) { return tokens.slots_of(token).size(); };
    auto weights = weights_by_token(task.call, tokens.size(), slots_of);
    // The writer reads the weights' memory, which moves along with its owner.
    scale_out::CombineStream const stream{.row_bytes = bytes_of_sum(task),
                                          .tokens = static_cast<std::uint32_t>(tokens.size()),
                                          .weights = weights,
                                          .epoch = task.epoch};
    scale_out::CombineWriter const writer(stream);
    all.push_back({served[i], tokens, std::move(weights), writer});
  }
  return all;
}

std::vector<ReturnedRows> returned_rows(PullTask const& task) {
  std::vector<ReturnedRows> all;
  for (scale_out::Way const& way : task.crossing->ways()) {
    scale_out::NodeTokens const& tokens =
        task.call.args.handle.routing()->to_nodes[static_cast<std::size_t>(way.node)];
    auto const slots_of = [&](std::size_t token) { return tokens.slots_of(token); };
    all.emplace_back(ReturnedStream{.way = way,
                                    .tokens = tokens,
                                    .row_bytes = bytes_of_sum(task),
                                    .weights = weights_by_token(task.call, tokens.size(), slots_of),
                                    .epoch = task.epoch});
  }
  return all;
}

}  // namespace switchyard
