#include "cli/bench/output.hpp"

#include <nlohmann/json.hpp>

#include "cli/bench/result_file.hpp"
#include "cli/print.hpp"

namespace switchyard::cli {

std::FILE* text_output(std::string const& json_path) {
  return json_path == "-" ? stderr : stdout;
}

void write_json(std::string const& json_path, nlohmann::ordered_json const& results) {
  if (json_path.empty()) return;
  std::string const text = results.dump(2) + "\n";
  if (json_path == "-") return print(stdout, text);
  write_file(json_path, text);
}

char const* commit_name() {
#ifdef SWITCHYARD_COMMIT
  return SWITCHYARD_COMMIT;
#else
  return "unknown";
#endif
}

nlohmann::ordered_json to_json(Machine const& machine) {
  return {{"cpu", machine.cpu_model}, {"cores", machine.cores}, {"memory_bytes", machine.memory_bytes}};
}

}  // namespace switchyard::cli
