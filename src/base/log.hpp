// The library's logger: stderr, level from SWITCHYARD_LOG (trace, debug, info, warn, error, off).
#pragma once

#include <spdlog/spdlog.h>

namespace switchyard {

spdlog::logger& logger();

}  // namespace switchyard
