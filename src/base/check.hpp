// Raising errors with text, and checking system calls.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include "switchyard/error.hpp"

namespace switchyard {

// Throws InvalidArgument with a formatted text unless `condition` holds.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw InvalidArgument(fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] inline void throw_errno(std::string_view what, int error = errno) {
  throw SystemError(fmt::format("{}: {}", what, std::system_category().message(error)));
}

// Throws the kind of error that `code` stands for.
[[noreturn]] void throw_error(ErrorCode code, std::string const& text, ErrorFacts const& facts);

// For calls that return a negative value and set errno.
template <typename Result>
Result check_call(Result result, std::string_view what) {
  if (result < 0) throw_errno(what);
  return result;
}

}  // namespace switchyard
