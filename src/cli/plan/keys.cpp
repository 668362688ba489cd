#include "cli/plan/keys.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "base/nearest.hpp"

namespace switchyard::cli {

using json = nlohmann::ordered_json;

void require_keys(json const& file, std::string_view path, std::span<std::string_view const> known) {
  std::string const of = path.empty() ? "" : std::string(path.substr(0, path.size() - 1)) + ": ";
  require(file.is_object(), "{}expected an object of keys and values, seen {}", of, file.type_name());
  for (auto const& [key, value] : file.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    std::string names;
    for (std::string_view const each : known) names += (names.empty() ? "" : ", ") + std::string(each);
    require(false, "{}{}: no such key; expected some of {}{}", path, key, names, did_you_mean(key, known));
  }
}

double key_number(json const& value, std::string_view name, NumberRange const& range) {
  char const* const kind = range.whole ? "a whole number" : "a number";
  require(value.is_number(), "{}: expected {} from {} to {}, seen {}", name, kind, range.low, range.high,
          value.dump());
  auto const number = value.get<double>();
  require(number >= range.low && number <= range.high && (!range.whole || number == std::floor(number)),
          "{}: expected {} from {} to {}, seen {}", name, kind, range.low, range.high, value.dump());
  return number;
}

double key_number(json const& file, std::string_view path, std::string const& key, NumberRange const& range) {
  require(file.contains(key), "{}{}: expected a number, seen none", path, key);
  return key_number(file.at(key), std::string(path) + key, range);
}

std::optional<std::string> key_text(json const& file, std::string_view path, std::string const& key) {
  if (!file.contains(key)) return std::nullopt;
  json const& value = file.at(key);
  require(value.is_string(), "{}{}: expected a text, seen {}", path, key, value.dump());
  return value.get<std::string>();
}

}  // namespace switchyard::cli
