#include "plan/buffer_plan.hpp"

#include <algorithm>

#include "layout/experts.hpp"

namespace switchyard {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
// A spin longer than a few wake-ups of a futex (about 5 us each) gains nothing.
constexpr std::chrono::microseconds short_spin{20};
// To give the core away and get it back takes a fifth of falling asleep and being woken, and it costs nobody much:
// so that goes on for as long as a small call takes.
constexpr std::chrono::microseconds long_yield{100};
// Address space is cheap, but not without end: a rank maps the heaps of all ranks into 47 bits.
constexpr std::size_t most_default_heap = std::size_t{1} << 40;

// The most rows that a rank receives in the expanded layout, where no token names an expert twice.
std::int64_t most_rows(BufferOptions const& options, int num_ranks) {
  ExpertSplit const experts(options.num_experts, num_ranks);
  return num_ranks * options.max_tokens * std::max(1, std::min(options.top_k, experts.max_count()));
}

// Two results of the largest kind: the rows that arrive, and the expert outputs of equal size.
std::size_t default_heap_bytes(BufferOptions const& options, int num_ranks) {
  auto const rows = static_cast<std::size_t>(most_rows(options, num_ranks));
  ReceiveShape const shape{.rows = static_cast<std::int64_t>(rows),
                           .row_bytes = static_cast<std::size_t>(options.hidden) * sizeof(float),
                           .scale_bytes = 0,
                           .topk_bytes = static_cast<std::size_t>(options.top_k) * sizeof(std::int64_t),
                           .weight_bytes = static_cast<std::size_t>(options.top_k) * sizeof(float)};
  return std::min(2 * receive_block(shape).bytes + huge_page, most_default_heap);
}

}  // namespace

BufferPlan plan_buffer(BufferOptions const& options, MachineShare const& share, std::int64_t spin_us) {
  BufferPlan plan;
  plan.control = control_layout(share.local_ranks, ExpertSplit(options.num_experts, share.num_ranks).max_count(),
                                share.served);
  std::size_t const heap = options.heap_bytes != 0           ? options.heap_bytes
                           : options.initial_heap_bytes != 0 ? options.initial_heap_bytes
                                                             : default_heap_bytes(options, share.num_ranks);
  plan = with_heap(plan, align_up(heap, page_bytes));
  plan.heap_given = options.heap_bytes != 0;
  plan.num_workers = options.num_workers > 0 ? options.num_workers : std::max(1, share.cores / share.local_ranks);
  // With fewer cores than ranks the rank that is waited for may need this very core.
  plan.yields = share.cores < share.local_ranks;
  plan.spin = spin_us >= 0 ? std::chrono::microseconds{spin_us} : plan.yields ? long_yield : short_spin;
  return plan;
}

BufferPlan with_heap(BufferPlan plan, std::size_t heap_bytes) {
  plan.heap_bytes = heap_bytes;
  plan.segment_bytes = plan.control.bytes + heap_bytes;
  return plan;
}

std::size_t most_host_heap(BufferPlan const& plan, HostBounds const& bounds, int num_ranks) {
  std::size_t const share = bounds.address_space / 2 / static_cast<std::size_t>(num_ranks);
  std::size_t const of_heap = share > plan.control.bytes ? share - plan.control.bytes : 0;
  return std::max(std::min(bounds.memory, of_heap) / page_bytes * page_bytes, page_bytes);
}

BufferPlan fit_into_host(BufferPlan plan, HostBounds const& bounds, int num_ranks) {
  return plan.heap_given ? plan : with_heap(plan, most_host_heap(plan, bounds, num_ranks));
}

}  // namespace switchyard
