#include "cli/plan/cluster_file.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "base/check.hpp"
#include "cli/plan/keys.hpp"
#include "cli/plan/text_file.hpp"
#include "cli/plan/yaml.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

constexpr double giga = 1e9;

// A number of the file, and where it goes.
struct NumberKey {
  std::string_view name;
  NumberRange range;
  void (*put)(simulator::Machine&, double);
};

// Those of the node's NICs become a GPU's share of them when all are read.
constexpr std::array number_keys{
    NumberKey{"nodes",
              {.low = 1, .high = 1e6, .whole = true},
              [](simulator::Machine& m, double v) { m.nodes = static_cast<int>(v); }},
    NumberKey{"gpus_per_node",
              {.low = 1, .high = 1024, .whole = true},
              [](simulator::Machine& m, double v) { m.gpus_per_node = static_cast<int>(v); }},
    NumberKey{"sms",
              {.low = 1, .high = 4096, .whole = true},
              [](simulator::Machine& m, double v) { m.sms = static_cast<int>(v); }},
    NumberKey{"sm_speed", {.low = 0.01, .high = 100}, [](simulator::Machine& m, double v) { m.sm_speed = v; }},
    NumberKey{
        "memory_gbs", {.low = 1, .high = 1e6}, [](simulator::Machine& m, double v) { m.memory_rate = v * giga; }},
    NumberKey{
        "memory_gb", {.low = 0.1, .high = 1e5}, [](simulator::Machine& m, double v) { m.memory_bytes = v * giga; }},
    NumberKey{
        "link_gbs", {.low = 0.1, .high = 1e5}, [](simulator::Machine& m, double v) { m.link_rate = v * giga; }},
    NumberKey{"hop_us", {.low = 0.1, .high = 1e5}, [](simulator::Machine& m, double v) { m.network.hop_us = v; }},
    NumberKey{"messages_per_second", {.low = 1, .high = 1e12}, [](simulator::Machine& m, double v) {
                m.network.message_rate = v;
              }}};

// Both say together what a GPU has.
constexpr std::string_view nics_key = "nics_per_node";
constexpr std::string_view nic_rate_key = "nic_gbs";
constexpr char const* calibration_key = "calibration";

std::vector<std::string_view> all_keys() {
  std::vector<std::string_view> keys{"name", "machine", calibration_key, nics_key, nic_rate_key};
  for (NumberKey const& key : number_keys) keys.push_back(key.name);
  return keys;
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
  double const count = key_number(file.at(nics), nics_key, {.low = 1, .high = 1024, .whole = true});
  double const each = key_number(file.at(rate), nic_rate_key, {.low = 0.001, .high = 1e4});
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

simulator::Machine machine_of(json const& file, bool calibrated) {
  auto const base = key_text(file, "", "machine");
  simulator::Machine machine = base ? simulator::known_machine(*base) : simulator::Machine{.name = "cluster"};
  if (auto const name = key_text(file, "", "name")) machine.name = *name;
  for (NumberKey const& key : number_keys) {
    std::string const name{key.name};
    bool const optional =
        base || calibrated || name == "nodes" || name == "sm_speed" || name == "messages_per_second";
    require(file.contains(name) || optional, "{}: expected a number, or `machine`, which names one that is known",
            name);
    if (file.contains(name)) key.put(machine, key_number(file.at(name), key.name, key.range));
  }
  take_nics(file, base || calibrated, machine);
  if (names_any(file, {"sms", "sm_speed", "memory_gbs", "link_gbs"})) machine.gpu_fitted = false;
  if (names_any(file, {"nic_gbs", "hop_us", "messages_per_second"})) machine.network_fitted = false;
  return machine;
}

// A machine that was calibrated by itself is one node. More of them need to know what is between.
void require_network(simulator::Machine& machine) {
  if (machine.network.rate > 0 && machine.network.hop_us > 0) return;
  if (machine.nodes == 0) machine.nodes = 1;
  require(machine.nodes == 1,
          "nodes: expected 1, which was calibrated, or hop_us, {} and {} with more of them, seen {}", nics_key,
          nic_rate_key, machine.nodes);
}

Cluster cluster_of(json const& file) {
  require_keys(file, "", all_keys());
  Cluster cluster;
  if (file.contains(calibration_key)) cluster.calibration = read_calibration(file.at(calibration_key));
  cluster.machine = machine_of(file, cluster.calibration.has_value());
  if (cluster.calibration) require_network(cluster.machine);
  return cluster;
}

}  // namespace

Cluster read_cluster(std::string const& path) {
  std::string const text = read_text(path);
  try {
    return cluster_of(path.ends_with(".yaml") || path.ends_with(".yml") ? parse_yaml(text) : parse_json(text));
  } catch (InvalidArgument const& fault) {
    throw InvalidArgument(fmt::format("{}: {}", path, fault.what()));
  }
}

}  // namespace switchyard::cli
