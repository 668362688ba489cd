#include "cli/machine.hpp"

#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <thread>

namespace switchyard::cli {

namespace {

constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max();

std::optional<std::int64_t> parse(std::string_view text) {
  auto const start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  text.remove_prefix(start);
  std::int64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} ? std::optional(value) : std::nullopt;
}

// What follows `key` on the line of a file that starts with it.
std::string field(std::string const& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return line.substr(key.size());
  }
  return {};
}

std::int64_t kib_field(std::string const& path, std::string_view key) {
  return parse(field(path, key)).value_or(0) * 1024;
}

// A group's limit less what it uses; page cache that can be dropped counts as free.
std::int64_t left_in_group(std::string const& folder, std::string const& limit_file, std::string const& use_file) {
  auto const limit = parse(first_line(folder + limit_file));  // version 2 says "max"
  auto const use = parse(first_line(folder + use_file));
  if (!limit || !use) return unlimited;
  auto const cache = parse(field(folder + "memory.stat", "inactive_file ")).value_or(0);
  return std::max(*limit - *use + cache, std::int64_t{0});
}

// All groups from that of this process up to the root.
std::int64_t left_in_groups() {
  std::int64_t left = left_in_group("/sys/fs/cgroup/memory/", "memory.limit_in_bytes", "memory.usage_in_bytes");
  std::filesystem::path group = field("/proc/self/cgroup", "0::");
  while (!group.empty()) {
    std::string const folder = "/sys/fs/cgroup" + (group / "").string();
    left = std::min(left, left_in_group(folder, "memory.max", "memory.current"));
    if (group == group.parent_path()) break;
    group = group.parent_path();
  }
  return left;
}

}  // namespace

std::string first_line(std::string const& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Machine describe_machine() {
  Machine machine;
  std::string const model = field("/proc/cpuinfo", "model name");
  auto const start = model.find_first_not_of(" \t:");
  machine.cpu_model = start == std::string::npos ? "unknown" : model.substr(start);
  cpu_set_t set;
  bool const known = sched_getaffinity(0, sizeof(set), &set) == 0;
  machine.cores = known ? CPU_COUNT(&set) : static_cast<int>(std::max(std::thread::hardware_concurrency(), 1U));
  machine.memory_bytes = kib_field("/proc/meminfo", "MemTotal:");
  return machine;
}

nlohmann::ordered_json to_json(Machine const& machine) {
  return {{"cpu", machine.cpu_model}, {"cores", machine.cores}, {"memory_bytes", machine.memory_bytes}};
}

std::string machine_id() {
  return first_line("/proc/sys/kernel/random/boot_id");
}

std::int64_t available_memory() {
  return std::min(kib_field("/proc/meminfo", "MemAvailable:"), left_in_groups());
}

ProcessMemory process_memory() {
  return {.proportional = kib_field("/proc/self/smaps_rollup", "Pss:"),
          .resident_peak = kib_field("/proc/self/status", "VmHWM:")};
}

OpenDescriptors open_descriptors() {
  OpenDescriptors open;
  for (auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++open.all;
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    int const fd = static_cast<int>(parse(entry.path().filename().string()).value_or(-1));
    bool const connected = ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0;
    if (connected && (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)) ++open.connections;
  }
  --open.all;  // the folder itself
  return open;
}

}  // namespace switchyard::cli
