// Where results of benchmarks go.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/machine.hpp"

namespace switchyard::cli {

// The stream for people; standard output is left to JSON when the path of that is "-".
std::FILE* text_output(std::string const& json_path);
// To the file, or to standard output; nothing for an empty path.
void write_json(std::string const& json_path, nlohmann::ordered_json const& results);

// The commit that this program was built from.
char const* commit_name();
nlohmann::ordered_json to_json(Machine const& machine);

}  // namespace switchyard::cli
