#include "base/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>

#include <memory>

#include "base/config.hpp"

namespace switchyard {

namespace {

std::shared_ptr<spdlog::logger> make_logger() {
  auto log = std::make_shared<spdlog::logger>("switchyard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  log->set_pattern("[%n %^%l%$ %P] %v");
  log->set_level(spdlog::level::from_str(config_text(Setting::log)));
  return log;
}

}  // namespace

spdlog::logger& logger() {
  static std::shared_ptr<spdlog::logger> const log = make_logger();
  return *log;
}

}  // namespace switchyard
