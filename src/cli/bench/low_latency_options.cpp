#include "cli/bench/low_latency_options.hpp"

#include "cli/bench/option_choice.hpp"

namespace switchyard::cli {

void add_latency_options(CLI::App& app, LatencyOptions& options) {
  add_choice(app, "--cast", std::array{SendCast::fp8, SendCast::fp8_pow2, SendCast::fp8_ue8m0}, options.cast,
             "latency: scales of --dtype fp8-cast");
  add_choice(app, "--coding", std::array{CombineCoding::none, CombineCoding::logfmt10}, options.coding,
             "latency: how outputs travel back");
  app.add_flag(
         "--zero-copy,!--any-pointer", options.zero_copy,
         "latency: expert outputs where combine reads them, or in other memory, which it copies first (always so "
         "with a coding)")
      ->capture_default_str();
  app.add_flag("--graphs,!--no-graphs", options.graphs, "latency: times within CUDA graphs, too (cuda)")
      ->capture_default_str();
  add_number(app, "--max-tokens", {0, std::int64_t{1} << 24}, options.max_tokens,
             "latency: tokens that buffers are made for; 0: as many as sent");
  add_number(app, "--input-sets", {1, 64}, options.input_sets, "latency: inputs that calls take in turn");
}

}  // namespace switchyard::cli
