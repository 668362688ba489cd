// A heap that is too small: OutOfMemory on every rank, with the bytes that were needed, and nothing lost.
#include <cctype>

#include "support/refusal.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t heap_bytes = std::size_t{1} << 20U;

// Rank 0 would receive `ranks * tokens` rows of 2 KiB; the others nothing.
Case to_rank_0(std::int64_t tokens) {
  return {.ranks = 3,
          .tokens = tokens,
          .counts = Tokens::equal,
          .hidden = 512,
          .routing = Routing::one_expert,
          .dtype = DType::f32,
          .combine_dtype = DType::f32};
}

BufferOptions small_heap(Problem const& p) {
  BufferOptions options = options_for(p);
  options.heap_bytes = heap_bytes;
  options.max_tokens = 1000;
  return options;
}

std::size_t largest_number(std::string const& what) {
  std::size_t most = 0;
  for (std::size_t i = 0; i < what.size(); ++i) {
    if (std::isdigit(static_cast<unsigned char>(what[i])) == 0) continue;
    std::size_t digits = 0;
    most = std::max(most, static_cast<std::size_t>(std::stoull(what.substr(i, 18), &digits)));
    i += digits;
  }
  return most;
}

template <typename Action>
void expect_out_of_memory(std::size_t at_least, Action&& action) {
  auto const error = expect_throw<OutOfMemory>("a small heap", action);
  check(largest_number(error.what()) >= at_least, "does not name the bytes needed (", at_least,
        "): ", error.what());
  check_names(error, {"rank", "heap_bytes"});
}

TEST(BadMemory, OneRankCannotReceive) {
  Problem const p = make_problem(to_rank_0(400));
  Problem const fits = make_problem(to_rank_0(20));
  run_ranks(Launch::threads, 3, p.the, [&](Communicator& communicator) {
    Buffer buffer(communicator, small_heap(p));
    RankInputs const inputs(p, communicator.rank());
    std::size_t const before = buffer.heap_bytes_used();
    for (int i = 0; i < 3; ++i) {
      expect_out_of_memory(std::size_t{3} * 400 * 2048, [&] { (void)buffer.dispatch(inputs.args()); });
      check_equal(buffer.heap_bytes_used(), before, "heap in use");
      round_trip(fits, buffer);
    }
  });
}

TEST(BadMemory, TheWorstCaseDoesNotFit) {
  Case c = to_rank_0(400);
  c.worst = true;
  Problem const p = make_problem(c);
  Problem const fits = make_problem(to_rank_0(20));
  run_ranks(Launch::threads, 3, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, small_heap(p));
    RankInputs const inputs(p, communicator.rank());
    expect_out_of_memory(std::size_t{3} * 400 * 2048, [&] { (void)buffer.dispatch(inputs.args()); });
    round_trip(fits, buffer);
  });
}

TEST(BadMemory, ResultsThatAreHeldFillTheHeap) {
  Problem const p = make_problem(to_rank_0(40));
  run_ranks(Launch::processes, 3, p.the, [&](Communicator& communicator) {
    Buffer buffer(communicator, small_heap(p));
    RankInputs const inputs(p, communicator.rank());
    std::vector<Dispatched> held;
    (void)expect_throw<OutOfMemory>("holding all", [&] {
      for (int i = 0; i < 100; ++i) held.push_back(buffer.dispatch(inputs.args()));
    });
    check(!held.empty() && held.size() < 10, "held ", held.size());
    for (Dispatched const& one : held) DispatchChecker(p, communicator.rank()).check_dispatch(one);
    held.clear();
    round_trip(p, buffer);
  });
}

// Expert outputs from outside of the heap are staged in it.
TEST(BadMemory, OneRankCannotStage) {
  Problem const p = make_problem(to_rank_0(20));
  run_ranks(Launch::threads, 3, p.the, [&](Communicator& communicator) {
    Buffer buffer(communicator, small_heap(p));
    Prepared prepared(p, buffer);
    Tensor filler;
    if (communicator.rank() == 0) {
      std::size_t const free_bytes = heap_bytes - buffer.heap_bytes_used() - 100'000;
      filler = buffer.allocate(DType::u8, {static_cast<std::int64_t>(free_bytes)});
    }
    expect_out_of_memory(std::size_t{3} * 20 * 2048, [&] { (void)buffer.combine(prepared.args(p)); });
    filler = {};
    prepared.outputs.check_weights(buffer.combine(prepared.args(p)));
    prepared.outputs.check_sums(prepared.out.data());
  });
}

}  // namespace
}  // namespace switchyard::test
