// Bad input on one rank: every rank must refuse with the same facts, and the buffer must go on working.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/flow.hpp"
#include "support/spoiled.hpp"

namespace switchyard::test {

inline constexpr int culprit = 1;

// A job of three ranks with a good problem, on which arguments are spoilt.
inline Case refusal_case() {
  Case c{.ranks = 3, .tokens = 6, .counts = Tokens::equal, .hidden = 20, .experts = 8, .top_k = 2};
  return c;
}

// An InvalidArgument that blames `rank` and names `words`.
template <typename Action>
void expect_refusal(std::string const& what, int rank, std::vector<std::string_view> const& words,
                    Action&& action) {
  auto const error = expect_throw<InvalidArgument>(what, action);
  check_equal(error.rank(), rank, what, ": rank of the error: ", error.what());
  check_names(error, {text("rank ", rank)});
  for (std::string_view const word : words) check_names(error, {word});
}

// A dispatched problem, ready to be combined.
struct Prepared {
  Dispatched received;
  CombineInputs outputs;
  std::vector<std::byte> x;
  std::vector<std::byte> out;

  Prepared(Problem const& p, Buffer& buffer)
      : received(buffer.dispatch(RankInputs(p, buffer.communicator().rank()).args())),
        outputs(p, buffer.communicator().rank(), {.biases = 2, .row_weights = true, .topk_weights = true}),
        x(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype)),
        out(index(p.the.tokens * p.the.hidden) * size_of(p.the.combine_dtype)) {
    outputs.write_rows(x.data());
  }

  [[nodiscard]] CombineArgs args(Problem const& p) {
    DType const dtype = p.the.combine_dtype;
    CombineArgs args = outputs.args({x.data(), dtype, {outputs.rows(), p.the.hidden}}, received.handle);
    args.out = {out.data(), dtype, {p.the.tokens, p.the.hidden}};
    return args;
  }
};

}  // namespace switchyard::test
