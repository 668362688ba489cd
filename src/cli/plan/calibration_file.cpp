#include "cli/plan/calibration_file.hpp"

#include <yaml-cpp/yaml.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/check.hpp"
#include "cli/plan/keys.hpp"
#include "layout/topology.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;
using simulator::OperationFit;

constexpr double gigabytes = 1e9;
constexpr double megabytes = 1e6;
constexpr NumberRange rates{.low = 1e-3, .high = 1e6};

constexpr std::array<std::string_view, 9> section_keys{"date",  "version",   "engine",     "ranks",  "memories",
                                                       "cores", "row_bytes", "throughput", "latency"};
constexpr std::array<std::string_view, 5> mode_keys{"least_tokens", "most_tokens", "cache_mb", "dispatch",
                                                    "combine"};
constexpr std::array<std::string_view, 4> operation_keys{"fixed_us", "cached_gbs", "memory_gbs", "spread"};

json const& take_section(json const& file, std::string const& path, std::string const& key) {
  require(file.contains(key), "{}{}: expected keys and values, seen none", path, key);
  return file.at(key);
}

OperationFit read_operation(json const& section, std::string const& path) {
  require_keys(section, path, operation_keys);
  OperationFit fit;
  fit.figures.fixed_us = key_number(section, path, "fixed_us", {.low = 0, .high = 1e7});
  fit.figures.cached_rate = key_number(section, path, "cached_gbs", rates) * gigabytes;
  fit.figures.memory_rate = key_number(section, path, "memory_gbs", rates) * gigabytes;
  fit.figures.spread = key_number(section, path, "spread", {.low = 0, .high = 10});
  return fit;
}

CalibratedMode read_mode(json const& section, std::string const& path) {
  require_keys(section, path, mode_keys);
  CalibratedMode mode;
  NumberRange const tokens{.low = 0, .high = 1 << 24, .whole = true};
  mode.least_tokens = static_cast<std::int64_t>(key_number(section, path, "least_tokens", tokens));
  mode.most_tokens = static_cast<std::int64_t>(key_number(section, path, "most_tokens", tokens));
  require(mode.most_tokens > mode.least_tokens, "{}most_tokens: expected more than least_tokens ({}), seen {}",
          path, mode.least_tokens, mode.most_tokens);
  mode.fit.cache_bytes = key_number(section, path, "cache_mb", {.low = 0, .high = 1e9}) * megabytes;
  mode.fit.dispatch = read_operation(take_section(section, path, "dispatch"), path + "dispatch.");
  mode.fit.combine = read_operation(take_section(section, path, "combine"), path + "combine.");
  return mode;
}

class Writer {
 public:
  Writer() { out_.SetDoublePrecision(5); }

  std::string text(Calibration const& of, CalibratedMachine const& machine) {
    out_ << YAML::Comment(
                "switchyard bench --calibrate wrote this; switchyard plan --cluster FILE reads it "
                "(docs/plan.md).")
         << YAML::Newline << YAML::BeginMap;
    put("name", std::string("this machine"), machine.processor);
    put("nodes", 1);
    put("gpus_per_node", max_node_ranks, "ranks that one node can have");
    put("memory_gb", machine.memory_bytes / gigabytes, "of a rank, with as many ranks as below");
    begin("calibration", "calls of Switchyard as they were timed here: " + machine.problem);
    put("date", of.date);
    put("version", of.version, "of Switchyard");
    put("engine", of.engine);
    put("ranks", of.ranks);
    put("memories", of.shared.memories, "that the ranks share evenly: GPUs, or 1 for ranks on CPUs");
    put("cores", of.shared.cores, "that ranks take turns on, so that fixed_us grows with ranks; 0: it does not");
    put("row_bytes", of.row_bytes, "of a token in a dispatch, with scales");
    put_mode("throughput", of.throughput);
    put_mode("latency", of.latency);
    out_ << YAML::EndMap << YAML::EndMap;
    return std::string(out_.c_str()) + "\n";
  }

 private:
  template <typename T>
  void put(char const* key, T const& value, std::string const& comment = "") {
    out_ << YAML::Key << key << YAML::Value;
    if constexpr (std::is_same_v<T, std::string>) out_ << YAML::DoubleQuoted;
    out_ << value;
    if (!comment.empty()) out_ << YAML::Comment(comment);
  }
  void begin(char const* key, std::string const& comment = "") {
    out_ << YAML::Key << key << YAML::Value;
    if (!comment.empty()) out_ << YAML::Comment(comment);
    out_ << YAML::BeginMap;
  }
  void put_mode(char const* key, CalibratedMode const& mode) {
    begin(key);
    put("least_tokens", mode.least_tokens, "a rank, that were timed");
    put("most_tokens", mode.most_tokens);
    put("cache_mb", mode.fit.cache_bytes / megabytes,
        "a call that moves so much has half of it at cached_gbs, half at memory_gbs");
    put_operation("dispatch", mode.fit.dispatch.figures);
    put_operation("combine", mode.fit.combine.figures);
    out_ << YAML::EndMap;
  }
  void put_operation(char const* key, simulator::CallFigures const& figures) {
    begin(key);
    put("fixed_us", figures.fixed_us, "of a call that moves nothing");
    put("cached_gbs", figures.cached_rate / gigabytes,
        "read and written by all ranks that share a memory, in caches");
    put("memory_gbs", figures.memory_rate / gigabytes, "the same, far beyond what caches hold");
    put("spread", figures.spread, "standard deviation of the logarithm: what the fit misses, and runs differ by");
    out_ << YAML::EndMap;
  }

  YAML::Emitter out_;
};

}  // namespace

Calibration read_calibration(json const& section) {
  std::string const path = "calibration.";
  require_keys(section, path, section_keys);
  Calibration all;
  all.date = key_text(section, path, "date").value_or("");
  all.version = key_text(section, path, "version").value_or("");
  all.engine = key_text(section, path, "engine").value_or("");
  NumberRange const counts{.low = 1, .high = max_node_ranks, .whole = true};
  all.ranks = static_cast<int>(key_number(section, path, "ranks", counts));
  all.shared.memories = static_cast<int>(key_number(section, path, "memories", counts));
  all.shared.cores = static_cast<int>(key_number(section, path, "cores", {.low = 0, .high = 1e5, .whole = true}));
  all.row_bytes =
      static_cast<std::int64_t>(key_number(section, path, "row_bytes", {.low = 1, .high = 1e9, .whole = true}));
  all.throughput = read_mode(take_section(section, path, "throughput"), path + "throughput.");
  all.latency = read_mode(take_section(section, path, "latency"), path + "latency.");
  return all;
}

simulator::Library Calibration::library() const {
  simulator::Library all = simulator::calibrated_library();
  for (auto const& [from, to] : {std::pair{&throughput, &all.throughput}, std::pair{&latency, &all.latency}}) {
    to->least_ranks = to->most_ranks = ranks;
    to->shared = shared;
    to->least_tokens = static_cast<double>(from->least_tokens);
    to->most_tokens = static_cast<double>(from->most_tokens);
    to->row_bytes = static_cast<double>(row_bytes);
    to->cache_bytes = from->fit.cache_bytes;
    for (auto const& [fit, figures] :
         {std::pair{&from->fit.dispatch, &to->dispatch}, std::pair{&from->fit.combine, &to->combine}}) {
      figures->fixed_us = fit->figures.fixed_us;
      figures->cached_rate = fit->figures.cached_rate;
      figures->memory_rate = fit->figures.memory_rate;
      figures->spread = fit->figures.spread;
    }
  }
  return all;
}

std::string calibration_yaml(Calibration const& calibration, CalibratedMachine const& machine) {
  return Writer().text(calibration, machine);
}

}  // namespace switchyard::cli
