// `switchyard report`, which Python draws.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard::cli {

// Becomes `python3 -m switchyard.report` with these arguments; SWITCHYARD_PYTHON names another interpreter. Throws
// SystemError where there is none.
[[noreturn]] void run_report(std::vector<std::string> arguments);
// The same, with a text as its standard input.
[[noreturn]] void run_report(std::vector<std::string> arguments, std::string_view input);

}  // namespace switchyard::cli
