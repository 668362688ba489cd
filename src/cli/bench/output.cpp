#include "cli/bench/output.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
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

Progress::Progress(bool wanted, int steps)
    : shown_(wanted && ::isatty(STDERR_FILENO) == 1), steps_(std::max(steps, 1)) {}

Progress::~Progress() {
  clear();
}

void Progress::step(std::string const& what) {
  if (!shown_) return;
  constexpr int width = 30;
  done_ = std::min(done_ + 1, steps_);
  int const filled = static_cast<int>(static_cast<long>(width) * done_ / steps_);
  clear();
  fmt::print(stderr, "\r[{:#<{}}{:.<{}}] {:3}% {}", "", filled, "", width - filled, done_ * 100 / steps_, what);
  std::fflush(stderr);
}

void Progress::clear() const {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
}

}  // namespace switchyard::cli
