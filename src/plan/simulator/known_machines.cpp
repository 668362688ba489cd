#include <algorithm>
#include <array>

#include "base/check.hpp"
#include "base/nearest.hpp"
#include "plan/simulator/machine.hpp"

namespace switchyard::simulator {

namespace {

constexpr double giga = 1e9;
constexpr double tera = 1e12;

// 400 Gb/s a GPU. The hop is fitted to what DeepEP and pplx publish of 128 tokens on 16 to 256 GPUs (docs/plan.md).
constexpr Network connectx7{.rate = 50 * giga, .hop_us = 11.8};
// 3200 Gb/s a node of eight. The hop is fitted to what pplx publishes of EP16 with 128 tokens; SRD acknowledges in
// software, which is why it is so much longer.
constexpr Network efa{.rate = 50 * giga, .hop_us = 93};
// 200 Gb/s a GPU. Nobody has published such calls over it: the hop is a guess between the two.
constexpr Network slingshot{.rate = 25 * giga, .hop_us = 25};

// GPU figures are of NVIDIA's data sheets: SMs, memory, NVLink (half of the sum of both directions).
Machine h100(std::string name, Network const& network) {
  return {.name = std::move(name),
          .vendor = Vendor::nvidia,
          .sms = 132,
          .memory_rate = 3.35 * tera,
          .memory_bytes = 80 * giga,
          .link_rate = 450 * giga,
          .network = network,
          .gpu_fitted = true,
          .network_fitted = true};
}

Machine h200(std::string name, Network const& network) {
  Machine machine = h100(std::move(name), network);
  machine.memory_rate = 4.8 * tera;
  machine.memory_bytes = 141 * giga;
  return machine;
}

Machine h800() {
  Machine machine = h100("h800", connectx7);
  machine.link_rate = 200 * giga;
  machine.gpu_fitted = false;
  return machine;
}

Machine h20() {
  Machine machine = h100("h20", connectx7);
  machine.sms = 78;
  machine.memory_rate = 4.0 * tera;
  machine.memory_bytes = 96 * giga;
  machine.gpu_fitted = false;
  return machine;
}

Machine b200(std::string name, Network const& network) {
  return {.name = std::move(name),
          .vendor = Vendor::nvidia,
          .sms = 148,
          .memory_rate = 8 * tera,
          .memory_bytes = 180 * giga,
          .link_rate = 900 * giga,
          .network = network,
          .network_fitted = true};
}

Machine b300() {
  Machine machine = b200("b300", {.rate = 100 * giga, .hop_us = connectx7.hop_us});  // ConnectX-8
  machine.memory_bytes = 270 * giga;
  machine.network_fitted = false;
  return machine;
}

// The scale-up domain is a tray of 4, or the whole rack, of which a job takes max_node_ranks at most.
Machine gb200(std::string name, int gpus) {
  Machine machine = b200(std::move(name), connectx7);
  machine.gpus_per_node = gpus;
  machine.sms = 152;
  machine.memory_bytes = 186 * giga;
  machine.gpu_fitted = true;
  return machine;
}

// Four superchips a node (Alps), each with an NVLink of 150 GB/s to each of the three others.
Machine gh200() {
  Machine machine = h100("gh200-slingshot", slingshot);
  machine.gpus_per_node = 4;
  machine.memory_rate = 4.0 * tera;
  machine.memory_bytes = 96 * giga;
  machine.gpu_fitted = false;
  machine.network_fitted = false;
  return machine;
}

// AMD's data sheets: compute units, and Infinity Fabric links of 64 or 76.8 GB/s one way to each of the seven
// others.
Machine mi300x() {
  return {.name = "mi300x",
          .vendor = Vendor::amd,
          .sms = 304,
          .memory_rate = 5.3 * tera,
          .memory_bytes = 192 * giga,
          .link_rate = 7 * 64 * giga,
          .network = connectx7,
          .gpu_fitted = true,
          .network_fitted = true};
}

// With 400 Gb/s a GPU, too.
Machine mi355x() {
  Machine machine = mi300x();
  machine.name = "mi355x";
  machine.sms = 256;
  machine.memory_rate = 8 * tera;
  machine.memory_bytes = 288 * giga;
  machine.link_rate = 7 * 76.8 * giga;
  machine.gpu_fitted = false;
  machine.network_fitted = false;
  return machine;
}

}  // namespace

std::span<Machine const> known_machines() {
  static std::array const machines{h100("h100", connectx7),
                                   h200("h200", connectx7),
                                   h800(),
                                   h20(),
                                   b200("b200", connectx7),
                                   b300(),
                                   gb200("gb200-nvl4", 4),
                                   gb200("gb200-nvl72", 64),
                                   h100("p5-efa", efa),
                                   h200("p5en-efa", efa),
                                   b200("p6-b200-efa", efa),
                                   gh200(),
                                   mi300x(),
                                   mi355x()};
  return machines;
}

std::vector<std::string_view> known_machine_names() {
  std::vector<std::string_view> names;
  for (Machine const& machine : known_machines()) names.push_back(machine.name);
  return names;
}

Machine const& known_machine(std::string_view name) {
  auto const machines = known_machines();
  auto const found = std::ranges::find(machines, name, &Machine::name);
  if (found == machines.end()) {
    auto const names = known_machine_names();
    std::string all;
    for (std::string_view const known : names) all += (all.empty() ? "" : ", ") + std::string(known);
    require(false, "machine: expected one of {}, seen '{}'{}", all, name, did_you_mean(name, names));
  }
  return *found;
}

}  // namespace switchyard::simulator
