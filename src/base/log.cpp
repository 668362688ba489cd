#include "base/log.hpp"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>

#include "base/config.hpp"

namespace switchyard {

namespace {

spdlog::logger make_log() {
  spdlog::logger log("switchyard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  log.set_pattern("[%n %^%l%$ %P] %v");
  log.set_level(spdlog::level::from_str(config_text(Setting::log)));
  for (std::string const& text : unknown_variables(names_of_environment())) log.warn(text);
  return log;
}

spdlog::logger& log_on_stderr() {
  static spdlog::logger log = make_log();
  return log;
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return spdlog::level::debug;
    case LogLevel::warn: return spdlog::level::warn;
    case LogLevel::error: break;
  }
  return spdlog::level::err;
}

}  // namespace

void Logger::write(LogLevel level, fmt::string_view format, fmt::format_args args) const {
  spdlog::logger& log = log_on_stderr();
  if (log.should_log(spdlog_level(level))) log.log(spdlog_level(level), fmt::vformat(format, args));
}

Logger const& logger() {
  static Logger const log = (log_on_stderr(), Logger());
  return log;
}

}  // namespace switchyard
