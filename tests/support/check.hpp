// Checks for code that runs as a rank, in a thread or in a child process, where GoogleTest's do not reach:
// a failed check throws, and the launcher reports it for the rank.
#pragma once

#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <typeinfo>

#include "switchyard/error.hpp"

namespace switchyard::test {

class CheckFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
std::string text(Parts const&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <typename... Parts>
void check(bool holds, Parts const&... parts) {
  if (!holds) throw CheckFailed(text(parts...));
}

template <typename A, typename B, typename... Parts>
void check_equal(A const& seen, B const& expected, Parts const&... parts) {
  if (!(seen == expected)) throw CheckFailed(text(parts..., ": expected ", expected, ", seen ", seen));
}

// Runs `action`, which must throw exactly an `Expected`, and returns that.
template <typename Expected, typename Action>
Expected expect_throw(std::string_view what, Action&& action) {
  try {
    action();
  } catch (Expected const& error) {
    return error;
  } catch (std::exception const& error) {
    throw CheckFailed(text(what, ": threw another type, ", typeid(error).name(), ": ", error.what()));
  }
  throw CheckFailed(text(what, ": did not throw"));
}

// The same where several errors are right; returns the error.
template <typename Action>
Error expect_throw_any(std::string_view what, Action&& action) {
  try {
    action();
  } catch (Error const& error) {
    return error;
  }
  throw CheckFailed(text(what, ": did not throw"));
}

// The text of an error must hold all of these.
inline void check_names(Error const& error, std::initializer_list<std::string_view> words) {
  std::string const what = error.what();
  for (std::string_view const word : words) {
    check(what.find(word) != std::string::npos, "the text does not name '", word, "': ", what);
  }
}

}  // namespace switchyard::test
