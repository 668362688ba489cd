#include "cli/plan/command.hpp"

#include "cli/bench/result_file.hpp"
#include "cli/plan/plan.hpp"
#include "cli/print.hpp"
#include "cli/report.hpp"

namespace switchyard::cli {

void run_plan(PlanOptions const& options) {
  bool const to_file = !options.json.empty() && options.json != "-";
  if (to_file) require_writable(options.json);
  Plan const plan = make_plan(options);
  if (to_file) write_file(options.json, plan_json(plan));
  print(stdout, options.json == "-" ? plan_json(plan) : plan_text(plan));
  if (!options.plot.empty())
    run_report({"-", "--output", options.plot, "--title", "switchyard plan"}, plan_json(plan));
}

}  // namespace switchyard::cli
