// How large a heap of host memory becomes when nobody says.
#include <gtest/gtest.h>

#include <limits>

#include "plan/buffer_plan.hpp"
#include "support/check.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t GiB = std::size_t{1} << 30;
constexpr std::size_t no_bound = std::numeric_limits<std::size_t>::max();

BufferPlan plan_of(std::int64_t max_tokens, int num_ranks, std::size_t heap_bytes = 0) {
  BufferOptions const options{
      .max_tokens = max_tokens, .hidden = 7168, .num_experts = 256, .top_k = 8, .heap_bytes = heap_bytes};
  return plan_buffer(options, {.num_ranks = num_ranks, .local_ranks = num_ranks, .cores = 8}, -1);
}

void check_whole(BufferPlan const& plan) {
  check(plan.heap_bytes > 0, "no heap");
  check_equal(plan.heap_bytes % page_bytes, std::size_t{0}, "bytes beyond whole pages");
  check_equal(plan.segment_bytes, plan.control.bytes + plan.heap_bytes, "bytes of the segment");
}

TEST(HeapPlan, SegmentsOfAllRanksFitIntoHalfOfTheAddressSpace) {
  for (int const num_ranks : {1, 2, 8, 64}) {
    for (std::size_t const space : {GiB, 40 * GiB, 47 * GiB + 12345}) {
      BufferPlan const plan =
          fit_into_host(plan_of(1 << 20, num_ranks), {.memory = no_bound, .address_space = space}, num_ranks);
      check_whole(plan);
      std::size_t const all = plan.segment_bytes * static_cast<std::size_t>(num_ranks);
      check(all <= space / 2, num_ranks, " segments: ", all, " bytes of ", space);
      check(space / 2 - all < page_bytes * static_cast<std::size_t>(num_ranks),
            "bytes that nobody uses: ", space / 2 - all);
    }
  }
}

TEST(HeapPlan, IsNoLargerThanTheMachine) {
  BufferPlan const plan = fit_into_host(plan_of(1 << 20, 2), {.memory = 3 * GiB, .address_space = no_bound}, 2);
  check_whole(plan);
  check_equal(plan.heap_bytes, 3 * GiB, "bytes of the heap");
}

// Addresses cost nothing, and whoever holds many results wants more than two of the largest.
TEST(HeapPlan, HasAddressesForAllMemory) {
  BufferPlan const plan = fit_into_host(plan_of(1, 4), {.memory = 100 * GiB + 5, .address_space = no_bound}, 4);
  check_whole(plan);
  check_equal(plan.heap_bytes, 100 * GiB, "bytes of the heap");
}

TEST(HeapPlan, SomebodysSizeIsNotChanged) {
  BufferPlan const plan = fit_into_host(plan_of(128, 4, 5 * GiB), {.memory = GiB, .address_space = GiB}, 4);
  check_whole(plan);
  check_equal(plan.heap_bytes, 5 * GiB, "bytes of the heap");
}

// The control block alone may take more than the share: mapping it then fails, with words that say why.
TEST(HeapPlan, NeverHasNoPage) {
  BufferPlan const plan = fit_into_host(plan_of(128, 64), {.memory = GiB, .address_space = 4096}, 64);
  check_whole(plan);
  check_equal(plan.heap_bytes, page_bytes, "bytes of the heap");
}

}  // namespace
}  // namespace switchyard::test
