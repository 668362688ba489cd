// YAML as the JSON that it stands for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace switchyard::cli {

// Plain scalars that are numbers become numbers, quoted ones and all others texts. Throws InvalidArgument, one
// line, for what is not YAML, and for a key that is there twice.
nlohmann::ordered_json parse_yaml(std::string const& text);

}  // namespace switchyard::cli
