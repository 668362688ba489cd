// Options that take whole numbers, or the names of an enumeration's values.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <array>
#include <concepts>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/number.hpp"

namespace switchyard::cli {

template <std::integral T>
struct Range {
  T low;
  T high;
};

// Throws CLI::ValidationError, which names the option, what was expected and what was seen. (CLI11's own numbers
// are cut to what fits, and its ranges are those of doubles.)
template <std::integral T>
T take_number(std::string_view flag, Range<T> range, std::string_view text) {
  try {
    return number_between(range.low, range.high, flag, text);
  } catch (InvalidArgument const& error) {
    throw CLI::ValidationError(error.what());
  }
}

template <std::integral T>
CLI::Option* add_number(CLI::App& app, std::string const& flag, Range<T> range, std::function<void(T)> const& take,
                        std::string const& doc) {
  auto const parse = [=](std::string const& text) { take(take_number(flag, range, text)); };
  return app.add_option_function<std::string>(flag, parse, doc)
      ->type_name(fmt::format("INT in [{} - {}]", range.low, range.high));
}

template <std::integral T>
void add_number(CLI::App& app, std::string const& flag, Range<std::type_identity_t<T>> range, T& target,
                std::string const& doc) {
  std::function<void(T)> const take = [&target](T value) { target = value; };
  add_number(app, flag, range, take, doc)->default_str(fmt::format("{}", target));
}

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
