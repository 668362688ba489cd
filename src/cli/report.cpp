#include "cli/report.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

#include "base/check.hpp"
#include "base/unique_fd.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cli {

namespace {

// Python's own words, where the package is missing, say nothing of what to do.
constexpr char const* program = R"(import importlib.util, sys
sys.path = [folder for folder in sys.path if folder]  # not the current folder: it may be that of our sources
if importlib.util.find_spec("switchyard") is None:
    sys.exit("switchyard report: the Python package switchyard draws it, and " + sys.executable + " has none; "
             "pip install 'switchyard[report]', or set SWITCHYARD_PYTHON to the Python that has it")
from switchyard.report import main
main()
)";

std::string interpreter() {
  char const* const named = std::getenv("SWITCHYARD_PYTHON");
  return named != nullptr && *named != '\0' ? named : "python3";
}

// Memory that a process can read as a file, and that goes with it.
UniqueFd file_of(std::string_view text) {
  UniqueFd file(::memfd_create("switchyard-report", MFD_CLOEXEC));
  if (!file) throw_errno("report: memfd_create");
  while (!text.empty()) {
    ssize_t const written = ::write(file.get(), text.data(), text.size());
    if (written < 0 && errno != EINTR) throw_errno("report: write");
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::lseek(file.get(), 0, SEEK_SET) != 0) throw_errno("report: lseek");
  return file;
}

}  // namespace

void run_report(std::vector<std::string> arguments) {
  std::string python = interpreter();
  std::string option = "-c";
  std::string code = program;
  std::vector<char*> all{python.data(), option.data(), code.data()};
  for (std::string& argument : arguments) all.push_back(argument.data());
  all.push_back(nullptr);
  ::execvp(python.c_str(), all.data());
  throw SystemError("report: expected the interpreter " + python +
                    " (SWITCHYARD_PYTHON names another), seen: " + text_of_errno(errno));
}

void run_report(std::vector<std::string> arguments, std::string_view input) {
  UniqueFd const file = file_of(input);
  if (::dup2(file.get(), STDIN_FILENO) < 0) throw_errno("report: dup2");
  run_report(std::move(arguments));
}

}  // namespace switchyard::cli
