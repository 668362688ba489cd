// Results that live side by side, are freed in any order, and leave the heap as it was.
#include <numeric>
#include <optional>

#include "support/flow.hpp"

namespace switchyard::test {
namespace {

constexpr int outstanding = 5;

// Problems of one shape with routings of their own.
std::vector<Problem> make_problems(Case c, int count) {
  std::vector<Problem> problems;
  for (int i = 0; i < count; ++i) {
    c.seed = mix(c.seed, 77);
    problems.push_back(make_problem(c));
  }
  return problems;
}

std::vector<std::size_t> random_order(std::size_t count, Random& random) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), 0U);
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[index(random.below(static_cast<int>(i)))]);
  return order;
}

Combined combine_one(Problem const& p, Buffer& buffer, Dispatched const& received, CombineInputs const& outputs) {
  Tensor const x = buffer.allocate(p.the.combine_dtype, {outputs.rows(), p.the.hidden});
  outputs.write_rows(x.data<void>());
  return buffer.combine(outputs.args(x, received.handle));
}

// All dispatches first, then combines in the order given (the same on all ranks); each rank frees in its own.
void overlap_lifetimes(std::vector<Problem> const& problems, Buffer& buffer,
                       std::vector<std::size_t> const& order) {
  int const rank = buffer.communicator().rank();
  std::vector<std::optional<Dispatched>> received;
  for (Problem const& p : problems) received.emplace_back(buffer.dispatch(RankInputs(p, rank).args()));
  for (std::size_t const i : order) {
    CombineInputs const outputs(problems[i], rank, {});
    outputs.check_result(combine_one(problems[i], buffer, *received[i], outputs));
  }
  Random random(mix(problems[0].the.seed, 5, rank));
  for (std::size_t const i : random_order(problems.size(), random)) {
    DispatchChecker(problems[i], rank).check_dispatch(*received[i]);
    received[i].reset();
  }
}

TEST(Lifetime, ManyResultsAtOnceFreedInAnyOrder) {
  for (Launch const launch : {Launch::threads, Launch::processes}) {
    Case const c{.launch = launch, .ranks = 3, .tokens = 15, .hidden = 50, .top_k = 3};
    std::vector<Problem> const problems = make_problems(c, outstanding);
    run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
      Buffer buffer(communicator, options_for(problems[0], 3 * outstanding));
      std::size_t const before = buffer.heap_bytes_used();
      Random random(c.seed);
      for (int i = 0; i < by_scale(2, 8); ++i)
        overlap_lifetimes(problems, buffer, random_order(outstanding, random));
      check_equal(buffer.heap_bytes_used(), before, "heap in use at the end");
      check(buffer.heap_bytes_peak() > before, "the heap's peak");
    });
  }
}

// Far more bytes than the heap has pass through it.
TEST(Lifetime, TheHeapIsUsedAgain) {
  Case const c{.ranks = 2, .tokens = 40, .hidden = 512, .dtype = DType::f32};
  std::vector<Problem> const problems = make_problems(c, 4);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    BufferOptions options = options_for(problems[0], 2);
    Buffer buffer(communicator, options);
    for (int i = 0; i < by_scale(40, 150); ++i) round_trip(problems[index(i % 4)], buffer);
    check(buffer.heap_bytes_peak() <= options.heap_bytes, "peak above the heap's size");
  });
}

// The size that a buffer chooses by itself holds two worst-case results of a dispatch.
TEST(Lifetime, TheDefaultHeapHoldsTwoWorstCases) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
    Case const c{.ranks = 3,
                 .tokens = 50,
                 .counts = Tokens::equal,
                 .hidden = 100,
                 .experts = 3,
                 .top_k = 3,
                 .layout = layout};  // every token goes to every rank
    Problem const p = make_problem(c);
    run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
      BufferOptions options = options_for(p);
      options.heap_bytes = 0;
      Buffer buffer(communicator, options);
      RankInputs const inputs(p, communicator.rank());
      Dispatched const first = buffer.dispatch(inputs.args());
      Dispatched const second = buffer.dispatch(inputs.args());
      DispatchChecker(p, communicator.rank()).check_dispatch(first);
      DispatchChecker(p, communicator.rank()).check_dispatch(second);
    });
  }
}

TEST(Lifetime, ADefaultHeapServesAWholeRoundTrip) {
  Case const c{.ranks = 3, .tokens = 50, .counts = Tokens::equal, .hidden = 100, .experts = 3, .top_k = 3};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    BufferOptions options = options_for(p);
    options.heap_bytes = 0;
    Buffer buffer(communicator, options);
    for (int i = 0; i < 3; ++i) round_trip(p, buffer, {.topk_weights = true});
  });
}

TEST(Lifetime, ResultsOutliveTheirBuffer) {
  Case const c{.ranks = 3};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    std::optional<Dispatched> received;
    {
      Buffer buffer(communicator, options_for(p));
      received = buffer.dispatch(RankInputs(p, communicator.rank()).args());
    }
    communicator.barrier();
    DispatchChecker(p, communicator.rank()).check_dispatch(*received);
    std::memset(received->x.data<void>(), 0, index(received->x.view().numel()) * size_of(c.dtype));
  });
}

// A task that waits for the last dispatch may be what keeps the buffer.
TEST(Lifetime, ATaskOfItsStreamLetsGoOfTheLastBuffer) {
  Case const c{.ranks = 2};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    RankInputs const inputs(p, communicator.rank());
    auto buffer = std::make_unique<Buffer>(communicator, options_for(p));
    Pending<Dispatched> pending = buffer->dispatch_async(inputs.args());
    Stream stream = buffer->stream();
    Event const gone = stream.submit([last = std::make_shared<std::unique_ptr<Buffer>>(std::move(buffer))] {});
    check(gone.wait_for(std::chrono::seconds{30}), "the buffer was not let go");
    DispatchChecker(p, communicator.rank()).check_dispatch(pending.get());
    communicator.barrier();
  });
}

TEST(Lifetime, ResultsMayBeFreedInAnotherThread) {
  Case const c{.ranks = 2};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 8));
    RankInputs const inputs(p, communicator.rank());
    std::size_t const before = buffer.heap_bytes_used();
    for (int i = 0; i < 20; ++i) {
      auto received = std::make_unique<Dispatched>(buffer.dispatch(inputs.args()));
      DispatchChecker(p, communicator.rank()).check_dispatch(*received);
      std::thread([moved = std::move(received)]() mutable { moved.reset(); }).join();
    }
    check_equal(buffer.heap_bytes_used(), before, "heap in use");
  });
}

TEST(Lifetime, TwoBuffersOfOneWorld) {
  Case const c{.ranks = 3, .top_k = 3};
  std::vector<Problem> const problems = make_problems(c, 2);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer one(communicator, options_for(problems[0]));
    Buffer two(communicator, options_for(problems[1]));
    for (int i = 0; i < 3; ++i) {
      round_trip(problems[0], one);
      round_trip(problems[1], two);
    }
  });
}

TEST(Lifetime, AllocatedTensorsAreWhatWasAskedFor) {
  run_ranks(Launch::threads, 1, "allocate", [](Communicator& communicator) {
    Buffer buffer(communicator,
                  {.max_tokens = 4, .hidden = 8, .num_experts = 2, .top_k = 1, .heap_bytes = 1 << 20U});
    std::size_t const before = buffer.heap_bytes_used();
    {
      Tensor const tensor = buffer.allocate(DType::f32, {5, 6, 7});
      oracle::expect_shape({.what = "allocated"}, tensor, DType::f32, {5, 6, 7});
      check(reinterpret_cast<std::uintptr_t>(tensor.data<void>()) % 64 == 0, "not aligned to a cache line");
      check(buffer.heap_bytes_used() >= before + 5 * 6 * 7 * 4, "not counted");
      Tensor const empty = buffer.allocate(DType::bf16, {0, 8});
      oracle::expect_shape({.what = "empty"}, empty, DType::bf16, {0, 8});
    }
    check_equal(buffer.heap_bytes_used(), before, "heap in use");
    (void)expect_throw<OutOfMemory>("a tensor of 1 TiB", [&] { (void)buffer.allocate(DType::u8, {1LL << 40U}); });
    for (std::int64_t const extent : {std::int64_t{1} << 31U, std::int64_t{1} << 32U, std::int64_t{1} << 62U}) {
      (void)expect_throw<OutOfMemory>("a size that overflows", [&] {
        (void)buffer.allocate(DType::f32, {extent, extent, 4});
      });
    }
    (void)expect_throw<InvalidArgument>("a negative size", [&] { (void)buffer.allocate(DType::u8, {-1}); });
  });
}

}  // namespace
}  // namespace switchyard::test
