// Keys of a file that users may write by hand, with one line for what is wrong.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace switchyard::cli {

// All of these throw InvalidArgument, which names the key and what would be right. `path`: what goes before a key
// in that text, "" or "calibration.".

// That `file` is an object and has no keys but these.
void require_keys(nlohmann::ordered_json const& file, std::string_view path,
                  std::span<std::string_view const> known);

struct NumberRange {
  double low = 0;
  double high = 0;
  bool whole = false;
};
double key_number(nlohmann::ordered_json const& value, std::string_view name, NumberRange const& range);
// One that must be there.
double key_number(nlohmann::ordered_json const& file, std::string_view path, std::string const& key,
                  NumberRange const& range);

std::optional<std::string> key_text(nlohmann::ordered_json const& file, std::string_view path,
                                    std::string const& key);

}  // namespace switchyard::cli
