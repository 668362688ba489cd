#include "cli/plan/yaml.hpp"

#include <yaml-cpp/yaml.h>

#include "base/check.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

json scalar_of(YAML::Node const& node) {
  bool const quoted = node.Tag() == "!";
  double number = 0;
  if (!quoted && YAML::convert<double>::decode(node, number)) return number;
  return node.Scalar();
}

json json_of(YAML::Node const& node, int depth) {
  require(depth < 8, "expected keys and values, seen lists or maps within one another");
  if (node.IsScalar()) return scalar_of(node);
  if (node.IsSequence()) {
    json list = json::array();
    for (YAML::Node const& each : node) list.push_back(json_of(each, depth + 1));
    return list;
  }
  if (!node.IsMap()) return nullptr;
  json map = json::object();
  for (auto const& pair : node) {
    require(pair.first.IsScalar(), "expected keys that are words");
    auto const key = pair.first.Scalar();
    require(!map.contains(key), "{}: expected once, seen twice", key);
    map[key] = json_of(pair.second, depth + 1);
  }
  return map;
}

}  // namespace

json parse_yaml(std::string const& text) {
  try {
    return json_of(YAML::Load(text), 0);
  } catch (YAML::Exception const& error) {
    throw InvalidArgument(fmt::format("expected YAML: {}", error.what()));
  }
}

}  // namespace switchyard::cli
