// Raising errors with text, and checking system calls.
#pragma once

#include <fmt/core.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "switchyard/error.hpp"

namespace switchyard {

[[noreturn]] void throw_invalid(fmt::string_view format, fmt::format_args args);

// Throws InvalidArgument with a formatted text unless `condition` holds.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw_invalid(format, fmt::make_format_args(args...));
}

// What the system says about an error, and what to do where file descriptors have run out.
std::string text_of_errno(int error);

[[noreturn]] void throw_errno(std::string_view what, int error = errno);

// Throws the kind of error that `code` stands for.
[[noreturn]] void throw_error(ErrorCode code, std::string const& text, ErrorFacts const& facts);

// For calls that return a negative value and set errno.
template <typename Result>
Result check_call(Result result, std::string_view what) {
  if (result < 0) throw_errno(what);
  return result;
}

}  // namespace switchyard
