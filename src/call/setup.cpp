#include "call/setup.hpp"

#include <algorithm>
#include <limits>
#include <thread>

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/deadline.hpp"
#include "call/views.hpp"
#include "layout/fp8.hpp"
#include "layout/routes.hpp"
#include "layout/scale_out/dispatch_format.hpp"
#include "layout/served_ranks.hpp"
#include "memory/host_limits.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

MachineShare share_of(Job const& job, int cores) {
  Topology const& topology = job.topology();
  int const node = topology.node_of(job.rank());
  return {.num_ranks = job.size(),
          .local_ranks = topology.num_ranks_of(node),
          .served = ServedRanks(topology, node).most(),
          .cores = cores};
}

// What one token may need at most of a chunk: rows of f32, or of bytes with their scales.
std::size_t least_chunk(BufferOptions const& options, Topology const& topology) {
  ExpertSplit const experts(options.num_experts, topology.num_ranks());
  auto const hidden = static_cast<std::size_t>(options.hidden);
  std::size_t least = 0;
  for (scale_out::NodeExperts const& there : scale_out::experts_by_node(topology, experts)) {
    least =
        std::max(least, scale_out::least_dispatch_chunk(
                            {.layout = OutputLayout::expanded,
                             .top_k = max_top_k,
                             .weights = true,
                             .row_bytes = hidden * sizeof(float),
                             .scale_bytes = static_cast<std::size_t>(scale_groups(options.hidden)) * sizeof(float),
                             .max_tokens = options.max_tokens},
                            there));
  }
  return least;
}

RingPlan rings_of(BufferOptions const& options, Topology const& topology, Device rows) {
  if (topology.num_nodes() == 1) return {};
  return plan_rings(topology, least_chunk(options, topology),
                    {.chunk_bytes = static_cast<std::size_t>(config_number(Setting::chunk_bytes)),
                     .slots = static_cast<int>(config_number(Setting::chunk_slots)),
                     .gpu_rows = rows == Device::cuda});
}

BufferSetup setup_of(BufferOptions const& options, Job const& job, Device rows) {
  check_options(options, job.size());
  int const cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::chrono::milliseconds const usual{config_number(Setting::timeout_ms)};
  BufferSetup setup;
  BufferOptions wanted = options;
  if (wanted.heap_bytes == 0) wanted.heap_bytes = static_cast<std::size_t>(config_number(Setting::heap_bytes));
  setup.plan = plan_buffer(wanted, share_of(job, cores), config_number(Setting::spin_us));
  setup.rings = rings_of(options, job.topology(), rows);
  setup.wait = {.timeout = options.timeout.count() > 0 ? options.timeout : usual,
                .spin = setup.plan.spin,
                .yields = setup.plan.yields};
  return setup;
}

}  // namespace

void check_options(BufferOptions const& options, int num_ranks) {
  // Rows are numbered in 32 bits, and each of a token's slots may take one.
  std::int64_t const most_tokens = std::numeric_limits<std::int32_t>::max() / num_ranks / max_top_k;
  constexpr std::int64_t most_hidden = 1 << 24;
  constexpr int most_experts = 1 << 20;
  constexpr std::size_t most_heap_bytes = std::size_t{1} << 44;
  require(options.max_tokens >= 1 && options.max_tokens <= most_tokens, "max_tokens: expected 1..{}, seen {}",
          most_tokens, options.max_tokens);
  require(options.hidden >= 1 && options.hidden <= most_hidden, "hidden: expected 1..{}, seen {}", most_hidden,
          options.hidden);
  require(options.num_experts >= 1 && options.num_experts <= most_experts, "num_experts: expected 1..{}, seen {}",
          most_experts, options.num_experts);
  require(options.top_k >= 1 && options.top_k <= max_top_k, "top_k: expected 1..{}, seen {}", max_top_k,
          options.top_k);
  require(options.heap_bytes <= most_heap_bytes, "heap_bytes: expected at most {}, seen {}", most_heap_bytes,
          options.heap_bytes);
  require(options.initial_heap_bytes <= most_heap_bytes, "initial_heap_bytes: expected at most {}, seen {}",
          most_heap_bytes, options.initial_heap_bytes);
  require(options.timeout.count() >= 0 && options.timeout <= longest_timeout,
          "timeout: expected 0..{} milliseconds, seen {}", longest_timeout.count(), options.timeout.count());
  check_workers(options.num_workers);
}

BufferSetup agree_on_setup(Job& job, BufferOptions const& options, Device rows) {
  BufferSetup setup;
  agree(job, refusal_of([&] { setup = setup_of(options, job, rows); }));
  return setup;
}

HostBounds agree_on_host_bounds(RankGroup& ranks) {
  return {.memory = machine_memory(), .address_space = least_of(ranks, free_address_space())};
}

BufferSetup agree_on_host_setup(Job& job, BufferOptions const& options) {
  BufferSetup setup = agree_on_setup(job, options);
  setup.plan = fit_into_host(setup.plan, agree_on_host_bounds(job), job.node()->size());
  return setup;
}

}  // namespace switchyard
