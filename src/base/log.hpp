// The library's log on stderr; the level comes from SWITCHYARD_LOG (trace, debug, info, warn, error, off). What is
// behind it, spdlog, is seen by log.cpp alone: its headers would cost every file that logs a second to compile.
// Its first use warns of misspelt SWITCHYARD_ variables, so a process does once; forked children inherit that.
#pragma once

#include <fmt/core.h>

#include <cstdint>

namespace switchyard {

enum class LogLevel : std::uint8_t { debug, warn, error };

class Logger {
 public:
  template <typename... Args>
  void debug(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::debug, format, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::warn, format, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) const {
    log(LogLevel::error, format, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) const {
    write(level, format, fmt::make_format_args(args...));
  }

 private:
  void write(LogLevel level, fmt::string_view format, fmt::format_args args) const;
};

// The first call reads the level, and throws if SWITCHYARD_LOG names none.
Logger const& logger();

}  // namespace switchyard
