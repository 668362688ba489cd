// The config table: every environment variable that changes what the library does, in one place.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// Order as in the table in config.cpp.
enum class Setting : unsigned char {
  log,
  timeout_ms,
  rendezvous_timeout_ms,
  huge_pages,
  numa,
  listen,
  allow_default_token,
  node,
  address,
  port_offset,
  spin_us,
  engine,
  gpu_memory,
  heap_bytes,
  libfabric,
  fabric_provider,
  fabric_nics,
  chunk_bytes,
  chunk_slots,
  transport,
  faults
};

struct SettingInfo {
  Setting setting;
  std::string_view variable;
  std::string_view fallback;
  std::string_view range;  // "a|b|c" for words, "low..high" for whole numbers
  std::string_view doc;
};

std::span<SettingInfo const> config_table() noexcept;
SettingInfo const& info_of(Setting setting) noexcept;

// Read from the environment at each call. Throw InvalidArgument, naming variable, range and value, when the
// value does not parse or lies outside the range.
std::string config_text(Setting setting);
std::int64_t config_number(Setting setting);

// The names of this process's environment variables.
std::vector<std::string> names_of_environment();

// A text for each of `names` that starts with SWITCHYARD_ and that nobody reads, a misspelt setting most likely. It
// names the setting that was probably meant.
std::vector<std::string> unknown_variables(std::span<std::string const> names);

}  // namespace switchyard
