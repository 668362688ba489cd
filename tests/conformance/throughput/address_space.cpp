// Ranks that may not map as much as they like, as in batch systems: `ulimit -v`.
#include <sys/resource.h>

#include <cstdlib>

#include "memory/host_limits.hpp"
#include "support/flow.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t GiB = std::size_t{1} << 30;

// So many bytes more than this process has mapped.
void limit_address_space(std::size_t more) {
  rlimit limit{};
  check(getrlimit(RLIMIT_AS, &limit) == 0, "getrlimit");
  rlimit none = limit;
  none.rlim_cur = limit.rlim_max;
  check(setrlimit(RLIMIT_AS, &none) == 0, "setrlimit");
  // Without a limit it is counted from 2^47.
  std::size_t const most = limit.rlim_max == RLIM_INFINITY ? std::size_t{1} << 47 : limit.rlim_max;
  limit.rlim_cur = most - free_address_space() + more;
  check(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit");
  check(free_address_space() <= more, "bytes that may be mapped after the limit: ", free_address_space());
}

// A worst case of 64 GiB and more, of which the cases dispatch little.
BufferOptions large_options(Problem const& p) {
  BufferOptions options = options_for(p);
  options.max_tokens = std::int64_t{1} << 23;
  options.heap_bytes = 0;
  return options;
}

// On one node, where each maps the heap of the other.
Case const small{.launch = Launch::processes, .ranks = 2, .nodes = {0, 0}, .tokens = 30, .hidden = 256};

void check_heap(Buffer& buffer, std::size_t fits, std::size_t does_not) {
  auto const bytes = [](std::size_t count) { return static_cast<std::int64_t>(count); };
  { Tensor const tensor = buffer.allocate(DType::u8, {bytes(fits)}); }
  expect_throw<OutOfMemory>("a tensor", [&] { (void)buffer.allocate(DType::u8, {bytes(does_not)}); });
}

// The limit of one rank holds for the heaps of all: it maps them, too.
TEST(AddressSpace, HeapsThatNobodyGaveASizeFit) {
  Problem const p = make_problem(small);
  run_ranks(small, [&](Communicator& communicator) {
    if (communicator.rank() == 1) limit_address_space(4 * GiB);
    Buffer buffer(communicator, large_options(p));
    check_heap(buffer, GiB / 2, GiB);
    round_trip(p, buffer);
    Buffer another(communicator, large_options(p));
    check_heap(another, GiB / 4, GiB);
    round_trip(p, another);
    communicator.barrier();
  });
}

TEST(AddressSpace, TooLargeAHeapIsAnErrorThatSaysWhatToDo) {
  Problem const p = make_problem(small);
  run_ranks(small, [&](Communicator& communicator) {
    BufferOptions options = large_options(p);
    if (communicator.rank() == 1) limit_address_space(4 * GiB);
    if (communicator.rank() == 0) options.heap_bytes = 5 * GiB;
    auto const error = expect_throw<OutOfMemory>("a buffer", [&] { Buffer const buffer(communicator, options); });
    check_names(error, {"rank 1: mapping a segment of 53", "ulimit -v", "BufferOptions::heap_bytes",
                        "SWITCHYARD_HEAP_BYTES"});
    Buffer buffer(communicator, large_options(p));
    round_trip(p, buffer);
    communicator.barrier();
  });
}

TEST(AddressSpace, LowLatencyBuffersSayWhatToLower) {
  run_ranks(small, [&](Communicator& communicator) {
    limit_address_space(GiB);
    LowLatencyOptions const options{
        .max_tokens = 4096, .hidden = 7168, .num_experts = 8, .top_k = 2, .engine = EngineKind::cpu};
    auto const error =
        expect_throw<OutOfMemory>("a buffer", [&] { LowLatencyBuffer const buffer(communicator, options); });
    check_names(error, {"mapping a segment of", "ulimit -v", "LowLatencyOptions::max_tokens"});
    communicator.barrier();
  });
}

// As deep_ep's users can.
TEST(AddressSpace, TheEnvironmentSetsTheSize) {
  Problem const p = make_problem(small);
  run_ranks(small, [&](Communicator& communicator) {
    setenv("SWITCHYARD_HEAP_BYTES", communicator.rank() == 0 ? "1048576" : "2097152", 1);
    Buffer buffer(communicator, large_options(p));
    std::size_t const mine = communicator.rank() == 0 ? 1048576 : 2097152;
    check_heap(buffer, mine, mine + 1);
    BufferOptions options = large_options(p);
    options.heap_bytes = 4194304;
    Buffer given(communicator, options);
    check_heap(given, 4194304, 4194305);
    round_trip(p, given);
    communicator.barrier();
  });
}

}  // namespace
}  // namespace switchyard::test
