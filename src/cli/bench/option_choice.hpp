// An option that takes the names of an enumeration's values.
#pragma once

#include <CLI/CLI.hpp>
#include <array>
#include <string>
#include <vector>

namespace switchyard::cli {

template <typename Enum, std::size_t N>
void add_choice(CLI::App& app, char const* flag, std::array<Enum, N> const& values, Enum& target, char const* doc) {
  std::vector<std::string> names;
  for (Enum const value : values) names.emplace_back(name_of(value));
  auto const assign = [values, &target](std::string const& name) {
    for (Enum const value : values) {
      if (name == name_of(value)) target = value;
    }
  };
  app.add_option_function<std::string>(flag, assign, doc)
      ->check(CLI::IsMember(names))
      ->default_str(std::string(name_of(target)));
}

}  // namespace switchyard::cli
