// The `switchyard` command.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/bench/command.hpp"
#include "cli/bench/options.hpp"
#include "cli/info.hpp"
#include "switchyard/error.hpp"

namespace {

using namespace switchyard;

// Exit statuses beside 0.
constexpr int failed = 1;
constexpr int bad_options = 2;

struct CommandLine {
  CLI::App app{"Switchyard: moves MoE tokens to their experts and back"};
  cli::BenchOptions bench_options;
  cli::BenchOptions trace_options;
  bool info_json = false;
  CLI::App* bench = nullptr;
  CLI::App* info = nullptr;
  CLI::App* trace = nullptr;

  CommandLine() {
    app.require_subcommand(1);
    app.set_version_flag("--version", std::string("switchyard ") + SWITCHYARD_VERSION);
    app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // so scripts can append
    bench =
        app.add_subcommand("bench", "dispatch and combine between processes of this machine: time and check them");
    cli::add_bench_options(*bench, bench_options);
    info = app.add_subcommand("info", "topology, engines, transports and settings");
    info->add_flag("--json", info_json, "as JSON");
    trace = app.add_subcommand("trace", "run one iteration and write a Chrome / Perfetto trace of all ranks");
    trace_options.iterations = 1;
    trace_options.warmup = 1;
    trace_options.trace = "switchyard-trace.json";
    cli::add_bench_options(*trace, trace_options);
  }
};

int run(CommandLine const& line) {
  if (line.info->parsed()) return cli::run_info(line.info_json);
  if (line.bench->parsed()) return cli::run_bench(line.bench_options);
  int const status = cli::run_bench(line.trace_options);
  if (status == 0) fmt::print(stderr, "switchyard: trace written to {}\n", line.trace_options.trace);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    CommandLine line;
    try {
      line.app.parse(argc, argv);
    } catch (CLI::ParseError const& error) {
      return line.app.exit(error) == 0 ? 0 : bad_options;
    }
    return run(line);
  } catch (switchyard::Error const& error) {
    fmt::print(stderr, "switchyard: {}\n", error.what());
    bool const options_at_fault =
        error.code() == ErrorCode::invalid_argument || error.code() == ErrorCode::unsupported;
    return options_at_fault ? bad_options : failed;
  } catch (std::exception const& error) {
    fmt::print(stderr, "switchyard: {}\n", error.what());
    return failed;
  }
}
