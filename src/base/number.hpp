// Whole numbers from the texts of users: options of the command, environment variables, ports.
#pragma once

#include <charconv>
#include <concepts>
#include <optional>
#include <string_view>

#include "base/check.hpp"

namespace switchyard {

// Decimal digits, with a minus sign before them where T has one. Nothing when the text is anything else, or when
// the number does not fit into T.
template <std::integral T>
std::optional<T> parse_number(std::string_view text) noexcept {
  // cppcheck takes the view of a caller's string that lives on for one of a string that has gone.
  T value{};
  char const* const end = text.data() + text.size();  // cppcheck-suppress invalidLifetime
  // cppcheck-suppress invalidLifetime
  auto const [stopped_at, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stopped_at == end ? std::optional(value) : std::nullopt;
}

// Throws InvalidArgument, which names what the number is for, what was expected and what was seen.
template <std::integral T>
T number_between(T low, T high, std::string_view name, std::string_view text) {
  auto const value = parse_number<T>(text);
  require(value && *value >= low && *value <= high, "{}: expected a whole number from {} to {}, seen '{}'", name,
          low, high, text);
  return *value;
}

}  // namespace switchyard
