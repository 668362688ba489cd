#include "cli/plan/options.hpp"

#include <CLI/CLI.hpp>
#include <array>
#include <limits>

#include "base/check.hpp"
#include "base/number.hpp"
#include "layout/routes.hpp"
#include "layout/topology.hpp"

namespace switchyard::cli {

namespace {

template <typename T>
T take(std::string_view flag, T low, T high, std::string_view text) {
  try {
    return number_between(low, high, flag, text);
  } catch (InvalidArgument const& error) {
    throw CLI::ValidationError(error.what());
  }
}

template <typename T>
void add_list(CLI::App& app, std::string const& flag, std::array<T, 2> range, std::vector<T>& target,
              std::string const& doc) {
  auto const parse = [flag, range, &target](std::string const& text) {
    target.clear();
    for (std::string const& part : CLI::detail::split(text, ','))
      target.push_back(take(flag, range[0], range[1], part));
  };
  app.add_option_function<std::string>(flag, parse, doc);
}

template <typename T>
void add_plan_number(CLI::App& app, std::string const& flag, std::array<T, 2> range, T& target,
                     std::string const& doc) {
  auto const parse = [flag, range, &target](std::string const& text) {
    target = take(flag, range[0], range[1], text);
  };
  app.add_option_function<std::string>(flag, parse, doc);
}

void add_routing(CLI::App& app, PlanOptions& options) {
  constexpr std::array kinds{PlanRouting::uniform,  PlanRouting::group_limited, PlanRouting::zipf,
                             PlanRouting::balanced, PlanRouting::replay,        PlanRouting::loads};
  std::vector<std::string> names;
  for (PlanRouting const kind : kinds) names.emplace_back(name_of(kind));
  auto const assign = [kinds, &options](std::string const& name) {
    for (PlanRouting const kind : kinds)
      if (name == name_of(kind)) options.routing = kind;
  };
  app.add_option_function<std::string>("--routing", assign, "which experts tokens go to")
      ->check(CLI::IsMember(names))
      ->default_str(std::string(name_of(options.routing)));
  app.add_option("--routing-file", options.routing_file,
                 "recorded ids: .npy file, int32 or int64 [tokens, top-k]; goes with --routing replay");
  app.add_option("--loads-file", options.loads_file,
                 "the experts' loads: JSON file, a list of numbers; goes with --routing loads");
}

}  // namespace

void add_plan_options(CLI::App& app, PlanOptions& options) {
  auto const take_machine = [&options](std::string const& name) {
    options.machine = name;
    options.machine_given = true;
  };
  app.add_option_function<std::string>("--machine", take_machine, "a machine that is known")
      ->default_str(options.machine);
  app.add_option("--cluster", options.cluster, "a JSON or YAML file that describes another one (docs/plan.md)");
  app.add_option("--library", options.library, "whose calls: switchyard, or one that it is compared with")
      ->capture_default_str();
  app.add_option("--mode", options.mode, "throughput, latency or both")
      ->check(CLI::IsMember({"throughput", "latency", "both"}))
      ->capture_default_str();
  app.add_option("--model", options.model, "whose shape")->capture_default_str();
  add_plan_number<std::int64_t>(app, "--hidden", {1, std::int64_t{1} << 20}, options.hidden, "elements of a token");
  add_plan_number(app, "--top-k", {1, max_top_k}, options.top_k, "experts of a token");
  add_plan_number(app, "--experts", {1, 65535}, options.experts, "experts of all ranks together");
  app.add_option("--dtype", options.dtype, "what dispatch sends; combine is bf16")
      ->check(CLI::IsMember({"fp8", "bf16", "fp4"}))
      ->capture_default_str();
  add_list(app, "--ranks", {1, 2048}, options.ranks, "ranks, a list (8,16,32,64,128,256,512,1024,2048)");
  add_list<std::int64_t>(app, "--tokens", {1, std::int64_t{1} << 20}, options.tokens,
                         "tokens of each rank, a list (128,4096)");
  add_list(app, "--sms", {0, 1024}, options.sms, "SMs that calls take, a list; 0: the fewest that reach 95 %");
  add_routing(app, options);
  add_plan_number<std::uint64_t>(app, "--seed", {0, std::numeric_limits<std::uint64_t>::max()}, options.seed,
                                 "seed of the routing");
  app.add_option("--json", options.json, "write the plan as JSON to this file ('-': standard output)");
  app.add_option("--plot", options.plot, "draw the plan as an HTML page: this file (needs Python; docs/report.md)");
}

}  // namespace switchyard::cli
