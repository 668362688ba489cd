#include "cli/plan/cluster_file.hpp"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.hpp"
#include "base/nearest.hpp"
#include "cli/plan/text_file.hpp"
#include "cli/plan/yaml.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

constexpr double giga = 1e9;

// A number of the file, and where it goes.
struct NumberKey {
  std::string_view name;
  bool whole;
  double low;
  double high;
  void (*put)(simulator::Machine&, double);
};

// Those of the node's NICs become a GPU's share of them when all are read.
constexpr std::array number_keys{
    NumberKey{"nodes", true, 1, 1e6, [](simulator::Machine& m, double v) { m.nodes = static_cast<int>(v); }},
    NumberKey{"gpus_per_node", true, 1, 1024,
              [](simulator::Machine& m, double v) { m.gpus_per_node = static_cast<int>(v); }},
    NumberKey{"sms", true, 1, 4096, [](simulator::Machine& m, double v) { m.sms = static_cast<int>(v); }},
    NumberKey{"sm_speed", false, 0.01, 100, [](simulator::Machine& m, double v) { m.sm_speed = v; }},
    NumberKey{"memory_gbs", false, 1, 1e6, [](simulator::Machine& m, double v) { m.memory_rate = v * giga; }},
    NumberKey{"memory_gb", false, 0.1, 1e5, [](simulator::Machine& m, double v) { m.memory_bytes = v * giga; }},
    NumberKey{"link_gbs", false, 0.1, 1e5, [](simulator::Machine& m, double v) { m.link_rate = v * giga; }},
    NumberKey{"hop_us", false, 0.1, 1e5, [](simulator::Machine& m, double v) { m.network.hop_us = v; }},
    NumberKey{"messages_per_second", false, 1, 1e12,
              [](simulator::Machine& m, double v) { m.network.message_rate = v; }}};

// Both say together what a GPU has.
constexpr std::string_view nics_key = "nics_per_node";
constexpr std::string_view nic_rate_key = "nic_gbs";

std::vector<std::string_view> all_keys() {
  std::vector<std::string_view> keys{"name", "machine", nics_key, nic_rate_key};
  for (NumberKey const& key : number_keys) keys.push_back(key.name);
  return keys;
}

void refuse_unknown_keys(json const& file) {
  auto const known = all_keys();
  for (auto const& [key, value] : file.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    std::string names;
    for (std::string_view const each : known) names += (names.empty() ? "" : ", ") + std::string(each);
    require(false, "{}: no such key; expected some of {}{}", key, names, did_you_mean(key, known));
  }
}

double take_number(json const& value, std::string_view key, bool whole, std::array<double, 2> const& range) {
  char const* const kind = whole ? "a whole number" : "a number";
  require(value.is_number(), "{}: expected {} from {} to {}, seen {}", key, kind, range[0], range[1], value.dump());
  auto const number = value.get<double>();
  require(number >= range[0] && number <= range[1] && (!whole || number == std::floor(number)),
          "{}: expected {} from {} to {}, seen {}", key, kind, range[0], range[1], value.dump());
  return number;
}

std::optional<std::string> take_text(json const& file, std::string const& key) {
  if (!file.contains(key)) return std::nullopt;
  json const& value = file.at(key);
  require(value.is_string(), "{}: expected a text, seen {}", key, value.dump());
  return value.get<std::string>();
}

void take_nics(json const& file, bool has_base, simulator::Machine& machine) {
  std::string const nics{nics_key};
  std::string const rate{nic_rate_key};
  bool const both = file.contains(nics) && file.contains(rate);
  bool const none = !file.contains(nics) && !file.contains(rate);
  require(both || (none && has_base),
          "{}: expected together with {}, both or neither (neither: those of `machine`)",
          file.contains(nics) ? nics_key : nic_rate_key, file.contains(nics) ? nic_rate_key : nics_key);
  if (none) return;
  double const count = take_number(file.at(nics), nics_key, true, {1, 1024});
  double const each = take_number(file.at(rate), nic_rate_key, false, {0.001, 1e4});
  machine.network.rate = count * each * giga / machine.gpus_per_node;
}

bool names_any(json const& file, std::initializer_list<char const*> keys) {
  for (char const* const key : keys)
    if (file.contains(key)) return true;
  return false;
}

json parse_json(std::string const& text) {
  try {
    return json::parse(text);
  } catch (json::exception const& error) {
    throw InvalidArgument(fmt::format("expected JSON: {}", error.what()));
  }
}

simulator::Machine machine_of(json const& file) {
  require(file.is_object(), "expected an object of keys and values, seen {}", file.type_name());
  refuse_unknown_keys(file);
  auto const base = take_text(file, "machine");
  simulator::Machine machine = base ? simulator::known_machine(*base) : simulator::Machine{.name = "cluster"};
  if (auto const name = take_text(file, "name")) machine.name = *name;
  for (NumberKey const& key : number_keys) {
    std::string const name{key.name};
    bool const optional = base || name == "nodes" || name == "sm_speed" || name == "messages_per_second";
    require(file.contains(name) || optional, "{}: expected a number, or `machine`, which names one that is known",
            name);
    if (file.contains(name)) key.put(machine, take_number(file.at(name), key.name, key.whole, {key.low, key.high}));
  }
  take_nics(file, base.has_value(), machine);
  if (names_any(file, {"sms", "sm_speed", "memory_gbs", "link_gbs"})) machine.gpu_fitted = false;
  if (names_any(file, {"nic_gbs", "hop_us", "messages_per_second"})) machine.network_fitted = false;
  return machine;
}

}  // namespace

simulator::Machine read_cluster(std::string const& path) {
  std::string const text = read_text(path);
  try {
    return machine_of(path.ends_with(".yaml") || path.ends_with(".yml") ? parse_yaml(text) : parse_json(text));
  } catch (InvalidArgument const& fault) {
    throw InvalidArgument(fmt::format("{}: {}", path, fault.what()));
  }
}

}  // namespace switchyard::cli
