#include "cli/bench/rank.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/bench/clocks.hpp"
#include "cli/bench/gather.hpp"
#include "cli/bench/low_latency_report.hpp"
#include "cli/bench/output.hpp"
#include "cli/machine.hpp"
#include "cli/print.hpp"
#include "oracle/payload.hpp"

namespace switchyard::cli {

namespace {

// Of x only the rows that arrived: there is room for many more.
Tensor rows_on_host(TensorMemory const& memory, Tensor const& x, Tensor const& counts) {
  if (!memory.on_gpu()) return x;
  Tensor host = TensorMemory(false).allocate(x.dtype(), {x.size(0), x.size(1), x.size(2)});
  std::size_t const row_bytes = static_cast<std::size_t>(x.size(2)) * size_of(x.dtype());
  for (std::int64_t part = 0; part < x.size(0); ++part) {
    auto const first = static_cast<std::size_t>(part * x.size(1)) * row_bytes;
    auto const count = std::clamp<std::int64_t>(counts.data<std::int32_t>()[part], 0, x.size(1));
    memory.copy(host.data<std::byte>() + first, x.data<std::byte>() + first,
                static_cast<std::size_t>(count) * row_bytes);
  }
  return host;
}

LowLatencyReceived on_host(TensorMemory const& memory, LowLatencyReceived received) {
  for (auto const part :
       {&LowLatencyReceived::scales, &LowLatencyReceived::counts, &LowLatencyReceived::ranges,
        &LowLatencyReceived::source_token, &LowLatencyReceived::topk_idx, &LowLatencyReceived::topk_weights})
    received.*part = memory.fetch(received.*part);
  received.x = rows_on_host(memory, received.x, received.counts);
  return received;
}

class LatencyRank {
 public:
  LatencyRank(BenchOptions const& options, Communicator communicator, SharedBarrier* barrier)
      : options_(options),
        communicator_(std::move(communicator)),
        start_line_(communicator_, barrier, options.timeout()) {}

  int run(Router const& route);

 private:
  [[nodiscard]] bool is_first() const { return communicator_.rank() == 0; }
  bool run_case(LatencyCase const& of);
  void print_head(LatencyCalls& calls);
  bool check(LatencyCase const& of, LatencyCalls& calls);
  std::optional<std::string> find_mismatch(LatencyCase const& of, LatencyCalls& calls, int set);
  void touch_outputs(LatencyCase const& of, LatencyCalls& calls);
  std::vector<LatencySamples> gather(LatencySamples const& mine);

  BenchOptions options_;
  Communicator communicator_;
  StartLine start_line_;
  std::optional<LatencyRun> run_;
  std::vector<LatencyResult> results_;
};

int LatencyRank::run(Router const& route) {
  for (std::int64_t const tokens : options_.latency.tokens) {
    if (!run_case(LatencyCase(options_, route, tokens))) return 1;
  }
  if (!is_first()) return 0;
  print(text_output(options_.json),
        options_.check ? "checked: every received byte and every combined value, before and after\n"
                       : "not checked (--no-check)\n");
  write_json(options_.json, to_json(*run_, results_));
  return 0;
}

bool LatencyRank::run_case(LatencyCase const& of) {
  LatencyCalls calls(of, communicator_);
  if (is_first() && !run_) print_head(calls);
  if (options_.check && !check(of, calls)) return false;
  touch_outputs(of, calls);
  LatencySamples const mine = measure_latency(of, calls, start_line_);
  if (options_.check && !check(of, calls)) return false;
  auto const all = gather(mine);
  if (!is_first()) return true;
  results_.push_back(make_latency_result(of, all));
  print(text_output(options_.json), to_table(results_.back()));
  return true;
}

void LatencyRank::print_head(LatencyCalls& calls) {
  int const workers =
      options_.workers > 0 ? options_.workers : std::max(1, describe_machine().cores / options_.problem.ranks);
  run_ = LatencyRun{.options = options_, .engine = calls.buffer().engine(), .workers = workers};
  print(text_output(options_.json), latency_headline(*run_) + "\n" + latency_table_head());
}

// The frame of each call was used before, and what it left would be seen.
std::optional<std::string> LatencyRank::find_mismatch(LatencyCase const& of, LatencyCalls& calls, int set) {
  TensorMemory const& memory = calls.memory();
  oracle::SeededData const data(of.problem(set), of.routing(set));
  oracle::LowLatencyChecker const checker(of.terms(set), of.slot_terms(), data, communicator_.rank());
  calls.select(set);
  memory.poison(calls.out());
  start_line_.align(check_allowance);
  calls.run(Part::dispatch);
  calls.wait();
  LowLatencyReceived received = on_host(memory, calls.received());
  auto fault = oracle::mismatch_of([&] { checker.check_received(received); });
  if (!fault) {
    checker.for_each_output(received, [&, to = calls.outputs()](std::int64_t slot, std::span<std::byte const> row) {
      memory.copy(to.data<std::byte>() + static_cast<std::size_t>(slot) * row.size(), row.data(), row.size());
    });
  }
  received = {};  // which holds the result
  start_line_.align(check_allowance);
  calls.run(Part::combine);
  calls.wait();
  Tensor const out = memory.fetch(calls.out());
  if (!fault) fault = oracle::mismatch_of([&] { checker.check_combined(out); });
  calls.release();
  return fault;
}

bool LatencyRank::check(LatencyCase const& of, LatencyCalls& calls) {
  std::optional<std::string> mine;
  // As many as there are frames, at least.
  for (int i = 0; i < std::max(of.sets(), 2) && !mine; ++i) mine = find_mismatch(of, calls, i % of.sets());
  start_line_.align(check_allowance);
  auto const found = gather_mismatches(communicator_, mine);
  if (is_first()) {
    for (auto const& text : found) say("mismatch: {}", text);
  }
  return found.empty();
}

// Memory of the outputs is there before it is timed: in each frame, for each set.
void LatencyRank::touch_outputs(LatencyCase const& of, LatencyCalls& calls) {
  int const frames = calls.buffer().options().max_results;
  for (int i = 0; i < frames * of.sets(); ++i) {
    calls.select(i / frames);
    start_line_.align(check_allowance);
    calls.run(Part::dispatch);
    calls.wait();
    Tensor const counts = calls.memory().fetch(calls.received().counts);
    Tensor const outputs = calls.outputs();
    std::size_t const row_bytes = static_cast<std::size_t>(outputs.size(2)) * 2;
    for (std::int64_t part = 0; part < outputs.size(0); ++part) {
      std::byte* const first =
          outputs.data<std::byte>() + static_cast<std::size_t>(part * outputs.size(1)) * row_bytes;
      calls.memory().fill(first, 0x3c, static_cast<std::size_t>(counts.data<std::int32_t>()[part]) * row_bytes);
    }
    start_line_.align(check_allowance);
    calls.run(Part::combine);
    calls.wait();
    calls.release();
  }
}

std::vector<LatencySamples> LatencyRank::gather(LatencySamples const& mine) {
  std::vector<LatencySamples> all(static_cast<std::size_t>(communicator_.size()));
  for (Clock const clock : all_clocks) {
    for (Part const part : all_parts) {
      auto const rows = gather_numbers(communicator_, mine.of(clock, part));
      for (std::size_t rank = 0; rank < all.size(); ++rank) all[rank].of(clock, part) = rows[rank];
    }
  }
  return all;
}

}  // namespace

int run_rank_latency(BenchOptions const& options, Router const& route, Communicator communicator,
                     SharedBarrier* barrier) {
  take_gpu(options.engine, communicator.rank());
  return LatencyRank(options, std::move(communicator), barrier).run(route);
}

}  // namespace switchyard::cli
