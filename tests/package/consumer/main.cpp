// A user's program against an installed Switchyard: one rank sends its tokens to itself and back.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "switchyard/switchyard.hpp"

int main() {
  using namespace switchyard;
  constexpr std::int64_t tokens = 5, hidden = 64, top_k = 2;

  auto world = Communicator::join(Communicator::in_process_store(), 0, 1);
  Buffer buffer(world, {.max_tokens = tokens, .hidden = hidden, .num_experts = 4, .top_k = top_k});

  std::vector<float> x(tokens * hidden);
  std::vector<std::int64_t> ids(tokens * top_k);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i % 4);

  Dispatched const sent = buffer.dispatch({x.data(), DType::f32, {tokens, hidden}},
                                          ConstTensorView{ids.data(), DType::i64, {tokens, top_k}});
  Tensor const back = buffer.combine(sent.x, sent.handle);

  for (std::size_t i = 0; i < x.size(); ++i) {
    if (back.data<float>()[i] != x[i]) {
      std::fprintf(stderr, "element %zu: expected %g, got %g\n", i, static_cast<double>(x[i]),
                   static_cast<double>(back.data<float>()[i]));
      return 1;
    }
  }
  std::puts("consumer: the tokens came back");
}
