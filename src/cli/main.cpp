// The `switchyard` command.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"
#include "base/nearest.hpp"
#include "cli/bench/command.hpp"
#include "cli/bench/options.hpp"
#include "cli/info.hpp"
#include "cli/plan/command.hpp"
#include "cli/print.hpp"
#include "cli/report.hpp"
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
  cli::PlanOptions plan_options;
  bool info_json = false;
  CLI::App* bench = nullptr;
  CLI::App* info = nullptr;
  CLI::App* plan = nullptr;
  CLI::App* report = nullptr;
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
    plan =
        app.add_subcommand("plan", "what dispatch and combine cost on a cluster that is described: no GPU needed");
    cli::add_plan_options(*plan, plan_options);
    report = app.add_subcommand("report", "one HTML page from files of bench, plan and Recorder (needs Python)");
    trace = app.add_subcommand("trace", "run one iteration and write a Chrome / Perfetto trace of all ranks");
    trace_options.iterations = 1;
    trace_options.warmup = 1;
    trace_options.trace = "switchyard-trace.json";
    cli::add_bench_options(*trace, trace_options);
  }
};

std::string nearest_command(CLI::App const& app, std::string const& word) {
  std::vector<std::string_view> names;
  for (CLI::App const* command : app.get_subcommands({})) names.push_back(command->get_name());
  return did_you_mean(word, names);
}

std::string nearest_option(CLI::App const& command, std::string const& word) {
  std::vector<std::string> names;
  for (CLI::Option const* option : command.get_options())
    for (std::string const& name : option->get_lnames()) names.push_back("--" + name);
  std::vector<std::string_view> const views(names.begin(), names.end());
  return did_you_mean(word, views);
}

// What is wrong with a command line that CLI11 does not take.
std::string explain(CLI::App const& app, CLI::ParseError const& error) {
  auto const commands = app.get_subcommands();
  auto const unknown = app.remaining(true);
  bool const incomplete =
      commands.empty() || error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
  if (!incomplete) return error.what();
  if (unknown.empty()) return "expected a command: bench, info, plan, report or trace";
  std::string const word = unknown.front().substr(0, unknown.front().find('='));
  if (commands.empty() && !word.starts_with("-"))
    return fmt::format("{}: no such command{}", word, nearest_command(app, word));
  if (commands.empty())
    return fmt::format("{}: expected a command before options: bench, info, plan, report or trace", word);
  std::string const& name = commands.front()->get_name();
  if (!word.starts_with("-")) return fmt::format("{}: {} takes options only", word, name);
  return fmt::format("{}: {} has no such option{}", word, name, nearest_option(*commands.front(), word));
}

// For a command line that runs nothing: a call for help, or a mistake. Returns the exit status.
int answer(CLI::App const& app, CLI::ParseError const& error) {
  std::ostringstream out;
  std::ostringstream err;
  if (app.exit(error, out, err) == 0) {
    cli::print(stdout, out.str());
    return 0;
  }
  cli::say("{}", explain(app, error));
  cli::say_line("run it with --help for more information");
  return bad_options;
}

int run(CommandLine const& line) {
  if (line.info->parsed()) {
    cli::run_info(line.info_json);
    return 0;
  }
  if (line.plan->parsed()) {
    cli::run_plan(line.plan_options);
    return 0;
  }
  logger();  // here, where ranks do not exist yet: what it has to say about the environment is said once
  if (line.bench->parsed()) return cli::run_bench(line.bench_options);
  int const status = cli::run_bench(line.trace_options);
  if (status == 0) cli::say("trace written to {}", line.trace_options.trace);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    cli::hold_standard_streams();
    // Its options are Python's.
    if (argc > 1 && std::string_view(argv[1]) == "report") cli::run_report({argv + 2, argv + argc});
    CommandLine line;
    try {
      line.app.parse(argc, argv);
    } catch (CLI::ParseError const& error) {
      return answer(line.app, error);
    }
    return run(line);
  } catch (switchyard::Error const& error) {
    cli::say("{}", error.what());
    bool const options_at_fault =
        error.code() == ErrorCode::invalid_argument || error.code() == ErrorCode::unsupported;
    return options_at_fault ? bad_options : failed;
  } catch (std::exception const& error) {
    cli::say("{}", error.what());
    return failed;
  }
}
