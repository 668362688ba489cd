// A heap that is too small for a result: the calls run in rounds, and nobody sees it but by the time they take.
#include "gpu/throughput/gpu_flow.hpp"
#include "gpu/throughput/numbers.hpp"
#include "layout/routing.hpp"

namespace switchyard::test {
namespace {

class GpuRounds : public GpuTest {};

constexpr std::size_t granule = std::size_t{2} << 20U;

// Takes all of the heap that is free.
std::vector<Tensor> take_all(Buffer& buffer) {
  std::vector<Tensor> fillers;
  for (std::size_t bytes = granule; bytes >= 4096; bytes /= 2) {
    try {
      for (;;) fillers.push_back(buffer.allocate(DType::u8, {static_cast<std::int64_t>(bytes)}));
    } catch (OutOfMemory const&) {
    }
  }
  return fillers;
}

// Takes all of the heap but `room` bytes. How large a heap is, the GPU's granularity decides: it is found by
// filling it.
Tensor fill_heap(Buffer& buffer, std::size_t room) {
  std::vector<Tensor> fillers = take_all(buffer);
  std::size_t const capacity = buffer.heap_bytes_used();
  fillers.clear();
  return buffer.allocate(DType::u8, {static_cast<std::int64_t>(capacity - room)});
}

struct RoundsCase {
  Case the;
  std::size_t room = 0;         // bytes of the heap
  bool only_on_rank_0 = false;  // the others have all of it, and need not wait for counts
  GpuExtras extras{};
  bool cached = false;
};

Handle dispatch_in_rounds(Problem const& p, Buffer& buffer, DeviceRank& device, RankInputs const& inputs) {
  DispatchArgs args = inputs.args();
  Numbers<std::int64_t> numbers(p, device, buffer.communicator().rank());
  if (!p.the.by_rank) args.received_per_expert = numbers.view();
  Handle handle = gpu_dispatch(p, buffer, device, args);
  if (!p.the.by_rank) numbers.check_after(1);  // the rounds' sums
  check(handle.routing()->rounds.size() > 1, "the case fits into the heap: it tests nothing");
  return handle;
}

// Three quarters of what was free are the rounds' own, and nothing else of the heap is in use: rounds that left
// something behind each, in the midst of what the next ones use, once made later calls fail.
void check_use(Buffer const& buffer, std::size_t before, std::size_t room) {
  std::size_t const used = buffer.heap_bytes_used();
  check(used <= before + room / 4 * 3, "bytes of the heap in use after a dispatch in rounds: ", used,
        ", before: ", before, ", free then: ", room);
}

void run_rounds(RoundsCase const& c) {
  Problem const p = make_problem(c.the);
  run_ranks(c.the.launch, c.the.ranks, c.the, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = gpu_options_for(p);
    options.heap_bytes = (c.only_on_rank_0 ? 16 : 2) * granule;
    Buffer buffer(communicator, options);
    Tensor filler;
    if (!c.only_on_rank_0 || communicator.rank() == 0) filler = fill_heap(buffer, c.room);
    RankInputs const inputs(p, communicator.rank());
    std::size_t const before = buffer.heap_bytes_used();
    for (bool const fill : {false, true, false}) {
      device.clear();
      Handle const handle = dispatch_in_rounds(p, buffer, device, inputs);
      if (filler.given()) check_use(buffer, before, c.room);
      // What the dispatch found to fit must do so with all other memory in the caller's hands.
      std::vector<Tensor> const others = fill ? take_all(buffer) : std::vector<Tensor>{};
      if (c.cached) {
        gpu_dispatch(p, buffer, device, inputs.cached_args(handle), Travel::cached);
        DispatchArgs again = inputs.args();
        again.handle = handle;
        gpu_dispatch(p, buffer, device, again, Travel::cached_with_ids);
      }
      gpu_combine(p, buffer, device, handle, c.extras);
    }
    communicator.barrier();
  });
}

constexpr std::size_t half = std::size_t{1} << 19U;

TEST_F(GpuRounds, Flat) {
  run_rounds({.the = {.ranks = 3, .tokens = 700, .counts = Tokens::varied, .hidden = 512},
              .room = half,
              .extras = {.combine = {.biases = 2, .topk_weights = true}, .outputs = OutputsIn::any_pointer},
              .cached = true});
  run_rounds({.the = {.ranks = 3, .tokens = 600, .hidden = 384, .dtype = DType::f8e4m3},
              .room = half / 2,
              .extras = {.outputs = OutputsIn::odd_pointer}});
}

// What the cast makes lies in the heap, too, while room for the rows is looked for.
TEST_F(GpuRounds, Cast) {
  run_rounds({.the = {.ranks = 3, .tokens = 900, .hidden = 384, .cast = true},
              .room = half,
              .extras = {.outputs = OutputsIn::any_pointer}});
}

// Some ranks have room for all that could arrive, and some for nothing: all must go into rounds.
TEST_F(GpuRounds, OnlyOneRankLacksRoom) {
  run_rounds({.the = {.ranks = 4, .tokens = 700, .hidden = 512},
              .room = half,
              .only_on_rank_0 = true,
              .extras = {.combine = {.topk_weights = true}, .outputs = OutputsIn::any_pointer}});
}

TEST_F(GpuRounds, OneRankGetsAll) {
  run_rounds({.the = {.ranks = 4, .tokens = 400, .hidden = 512, .routing = Routing::one_expert},
              .room = half,
              .extras = {.combine = {.row_weights = true}, .outputs = OutputsIn::any_pointer}});
}

TEST_F(GpuRounds, SomeHaveNoTokens) {
  run_rounds({.the = {.ranks = 3, .tokens = 1200, .counts = Tokens::first_only, .hidden = 512, .by_rank = true},
              .room = half,
              .extras = {.outputs = OutputsIn::any_pointer}});
}

TEST_F(GpuRounds, Expanded) {
  run_rounds({.the = {.ranks = 3,
                      .tokens = 500,
                      .hidden = 512,
                      .experts = 7,
                      .top_k = 3,
                      .routing = Routing::skewed,
                      .layout = OutputLayout::expanded,
                      .alignment = 8,
                      .zero_padding = true},
              .room = half,
              .extras = {.combine = {.row_weights = true, .topk_weights = true}, .outputs = OutputsIn::any_pointer},
              .cached = true});
}

// Rows that a combine brings back may be wider than those that the dispatch received.
TEST_F(GpuRounds, WiderOutputs) {
  for (DType const dtype : {DType::f8e4m3, DType::bf16}) {
    run_rounds({.the = {.ranks = 3,
                        .tokens = 1200,
                        .counts = Tokens::equal,
                        .hidden = 384,
                        .dtype = dtype,
                        .combine_dtype = DType::f32},
                .room = half,
                .extras = {.combine = {.row_weights = true}, .outputs = OutputsIn::any_pointer}});
  }
}

// All handles share one room, also those of dispatches that find no other memory in the heap: not for their rows,
// nor for their own handle, nor for what the cast makes.
TEST_F(GpuRounds, SeveralHandlesInAFullHeap) {
  for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
    Case const c{.ranks = 3,
                 .tokens = 700,
                 .counts = Tokens::equal,
                 .hidden = 512,
                 .top_k = 3,
                 .cast = true,
                 .layout = layout};
    Problem const p = make_problem(c);
    run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
      DeviceRank device(communicator.rank());
      communicator.barrier();
      BufferOptions options = gpu_options_for(p);
      options.heap_bytes = 2 * granule;
      Buffer buffer(communicator, options);
      Tensor const filler = fill_heap(buffer, half);
      RankInputs const inputs(p, communicator.rank());
      Handle const first = dispatch_in_rounds(p, buffer, device, inputs);
      std::vector<Tensor> const others = take_all(buffer);
      Handle const second = dispatch_in_rounds(p, buffer, device, inputs);
      GpuExtras const extras{.combine = {.topk_weights = true}, .outputs = OutputsIn::any_pointer};
      gpu_combine(p, buffer, device, second, extras);
      gpu_dispatch(p, buffer, device, inputs.cached_args(first), Travel::cached);
      gpu_combine(p, buffer, device, first, extras);
      communicator.barrier();
    });
  }
}

// Not even one token's result fits: an error on every rank, and the buffer goes on.
TEST_F(GpuRounds, NotEvenOneToken) {
  Case const c{.ranks = 2, .tokens = 20, .counts = Tokens::equal, .hidden = 20000, .dtype = DType::f32};
  Problem const p = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    DeviceRank device(communicator.rank());
    communicator.barrier();
    BufferOptions options = gpu_options_for(p);
    options.heap_bytes = 2 * granule;
    Buffer buffer(communicator, options);
    RankInputs const inputs(p, communicator.rank());
    {
      Tensor const filler = fill_heap(buffer, 65536);
      DispatchArgs const args = device.upload(inputs.args());
      auto const error = expect_throw<OutOfMemory>("a dispatch", [&] { (void)buffer.dispatch(args); });
      check_names(error, {"heap_bytes"});
    }
    gpu_dispatch(p, buffer, device, inputs.args());
    communicator.barrier();
  });
}

}  // namespace
}  // namespace switchyard::test
