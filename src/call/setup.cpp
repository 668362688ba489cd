#include "call/setup.hpp"

#include <algorithm>
#include <limits>
#include <thread>

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/deadline.hpp"
#include "call/views.hpp"
#include "layout/routes.hpp"
#include "memory/host_limits.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

BufferSetup setup_of(BufferOptions const& options, int num_ranks) {
  check_options(options, num_ranks);
  int const cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::chrono::milliseconds const usual{config_number(Setting::timeout_ms)};
  BufferSetup setup;
  BufferOptions wanted = options;
  if (wanted.heap_bytes == 0) wanted.heap_bytes = static_cast<std::size_t>(config_number(Setting::heap_bytes));
  setup.plan = plan_buffer(wanted, {.num_ranks = num_ranks, .cores = cores}, config_number(Setting::spin_us));
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

BufferSetup agree_on_setup(RankGroup& ranks, BufferOptions const& options) {
  BufferSetup setup;
  agree(ranks, refusal_of([&] { setup = setup_of(options, ranks.size()); }));
  return setup;
}

HostBounds agree_on_host_bounds(RankGroup& ranks) {
  return {.memory = machine_memory(), .address_space = least_of(ranks, free_address_space())};
}

BufferSetup agree_on_host_setup(RankGroup& ranks, BufferOptions const& options) {
  BufferSetup setup = agree_on_setup(ranks, options);
  setup.plan = fit_into_host(setup.plan, agree_on_host_bounds(ranks), ranks.size());
  return setup;
}

}  // namespace switchyard
