#include "base/config.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/nearest.hpp"
#include "base/number.hpp"

namespace switchyard {

namespace {

constexpr std::array table{
    SettingInfo{Setting::log, "SWITCHYARD_LOG", "warn", "trace|debug|info|warn|error|off",
                "lowest level that is logged"},
    SettingInfo{Setting::timeout_ms, "SWITCHYARD_TIMEOUT_MS", "30000", "1..86400000",
                "deadline of a wait for a peer during dispatch and combine, milliseconds"},
    SettingInfo{Setting::rendezvous_timeout_ms, "SWITCHYARD_RENDEZVOUS_TIMEOUT_MS", "60000", "1..86400000",
                "deadline for the ranks to find one another, milliseconds"},
    SettingInfo{Setting::huge_pages, "SWITCHYARD_HUGE_PAGES", "auto", "auto|off",
                "ask for transparent huge pages in the symmetric heap"},
    SettingInfo{Setting::numa, "SWITCHYARD_NUMA", "auto", "auto|off",
                "bind the symmetric heap to the NUMA node that its rank runs on"},
    SettingInfo{Setting::listen, "SWITCHYARD_LISTEN", "auto", "auto, or an address or name of this machine",
                "address that the store listens on; auto: the store's own with SWITCHYARD_TOKEN, else loopback"},
    SettingInfo{
        Setting::allow_default_token, "SWITCHYARD_ALLOW_DEFAULT_TOKEN", "0", "0..1",
        "1: ranks on several machines may do without SWITCHYARD_TOKEN; anybody on the network can join then"},
    SettingInfo{Setting::node, "SWITCHYARD_NODE", "", "a name of at most 63 bytes",
                "ranks that give the same name form a node; without one, ranks that can share memory do"},
    SettingInfo{Setting::address, "SWITCHYARD_ADDRESS", "auto", "auto, or an address or name of this machine",
                "where ranks of other nodes reach this one; auto: the address by which it reaches the store"},
    SettingInfo{Setting::port_offset, "SWITCHYARD_PORT_OFFSET", "1", "0..1000",
                "the store's port is MASTER_PORT plus this (the launcher's own store has MASTER_PORT)"},
    SettingInfo{
        Setting::spin_us, "SWITCHYARD_SPIN_US", "-1", "-1..1000000",
        "microseconds a wait stays awake before it sleeps; -1: 20 when every rank has a core, else 100, giving the "
        "core away meanwhile"},
    SettingInfo{Setting::engine, "SWITCHYARD_ENGINE", "auto", "auto|cpu|cuda",
                "engine of buffers that do not choose one; auto: cuda when there is a GPU that this build can use"},
    SettingInfo{Setting::gpu_memory, "SWITCHYARD_GPU_MEMORY", "auto", "auto|fd|fabric|ipc",
                "how GPU memory is shared with other ranks; auto: the first of these that works for all"},
    SettingInfo{Setting::heap_bytes, "SWITCHYARD_HEAP_BYTES", "0", "0..17592186044416",
                "bytes of each rank's heap where a buffer's options say none; 0: chosen by the buffer's sizes"},
    SettingInfo{Setting::libfabric, "SWITCHYARD_LIBFABRIC", "libfabric.so.1", "a file, or a name for the loader",
                "libfabric, which is loaded when it is first needed"},
    SettingInfo{Setting::fabric_provider, "SWITCHYARD_FABRIC_PROVIDER", "auto", "auto, or a provider of libfabric",
                "what carries data between nodes; auto: the best one here"},
    SettingInfo{Setting::fabric_nics, "SWITCHYARD_FABRIC_NICS", "auto", "auto, or names or addresses with commas",
                "NICs that carry data between nodes; auto: all of a fabric, or one of TCP"},
    SettingInfo{Setting::chunk_bytes, "SWITCHYARD_CHUNK_BYTES", "0", "0..1073741824",
                "bytes of rows that leave for another node in one write; 0: 294912, with rows on GPUs 1048576, "
                "less in jobs of many nodes"},
    SettingInfo{Setting::chunk_slots, "SWITCHYARD_CHUNK_SLOTS", "0", "0..64",
                "chunks that may be under way from one rank to another; 0: 4"},
    SettingInfo{Setting::transport, "SWITCHYARD_TRANSPORT", "auto", "auto|libfabric|loopback",
                "what writes between nodes; loopback: for ranks that are threads of one process, which auto sees"},
    SettingInfo{Setting::faults, "SWITCHYARD_FAULTS", "0", "0..4294967295",
                "for tests: more than 0 is the seed of what goes wrong between nodes on purpose: delays, writes in "
                "any order, too little room"},
};

constexpr std::string_view prefix = "SWITCHYARD_";

// Variables with our prefix that are no settings: where a process stands in its job (bootstrap/environment.hpp),
// where CMake finds an installed library, and what the tools and tests of our source tree read or a user may export
// for them.
constexpr std::array<std::string_view, 23> other_variables{
    "SWITCHYARD_RANK",         "SWITCHYARD_WORLD_SIZE",
    "SWITCHYARD_STORE",        "SWITCHYARD_TOKEN",
    "SWITCHYARD_ROOT",         "SWITCHYARD_DIR",
    "SWITCHYARD_BUILD_ROOT",   "SWITCHYARD_BUILD_CLI",
    "SWITCHYARD_BUILD_TESTS",  "SWITCHYARD_BUILD_EXAMPLES",
    "SWITCHYARD_BUILD_PYTHON", "SWITCHYARD_BUILD_FUZZERS",
    "SWITCHYARD_CUDA",         "SWITCHYARD_CUDA_ARCHITECTURES",
    "SWITCHYARD_SANITIZE",     "SWITCHYARD_TEST_SCALE",
    "SWITCHYARD_TEST_SEED",    "SWITCHYARD_UNITY",
    "SWITCHYARD_PYTHON",       "SWITCHYARD_FABRIC",
    "SWITCHYARD_TEST_NODES",   "SWITCHYARD_PYTHON_SHARES",
    "SWITCHYARD_MAINTAINER",
};

bool one_of(std::string_view words, std::string_view value) {
  while (!words.empty()) {
    auto const bar = words.find('|');
    if (words.substr(0, bar) == value) return true;
    if (bar == std::string_view::npos) break;
    words.remove_prefix(bar + 1);
  }
  return false;
}

std::string read(SettingInfo const& info) {
  char const* const value = std::getenv(std::string(info.variable).c_str());
  return value != nullptr ? value : std::string(info.fallback);
}

[[noreturn]] void refuse(SettingInfo const& info, std::string const& value) {
  throw InvalidArgument(fmt::format("{}: expected {}, seen '{}'", info.variable, info.range, value));
}

}  // namespace

std::span<SettingInfo const> config_table() noexcept {
  return table;
}

SettingInfo const& info_of(Setting setting) noexcept {
  return table[static_cast<std::size_t>(setting)];
}

std::string config_text(Setting setting) {
  SettingInfo const& info = info_of(setting);
  std::string value = read(info);
  bool const words = info.range.find('|') != std::string_view::npos;
  if (words && !one_of(info.range, value)) refuse(info, value);
  return value;
}

std::int64_t config_number(Setting setting) {
  SettingInfo const& info = info_of(setting);
  std::string const text = read(info);
  auto const dots = info.range.find("..");
  auto const value = parse_number<std::int64_t>(text);
  auto const low = parse_number<std::int64_t>(info.range.substr(0, dots));
  auto const high = parse_number<std::int64_t>(info.range.substr(dots + 2));
  if (!value || !low || !high || *value < *low || *value > *high) refuse(info, text);
  return *value;
}

std::vector<std::string> unknown_variables(std::span<std::string const> names) {
  std::vector<std::string_view> known(other_variables.begin(), other_variables.end());
  for (SettingInfo const& info : table) known.push_back(info.variable);
  std::vector<std::string> texts;
  for (std::string_view const name : names) {
    if (!name.starts_with(prefix) || std::ranges::find(known, name) != known.end()) continue;
    texts.push_back(fmt::format("{}: Switchyard reads no such variable{}", name, did_you_mean(name, known)));
  }
  return texts;
}

std::vector<std::string> names_of_environment() {
  std::vector<std::string> names;
  for (char const* const* entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    std::string_view const text = *entry;
    names.emplace_back(text.substr(0, text.find('=')));
  }
  return names;
}

}  // namespace switchyard
