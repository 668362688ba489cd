// What a cluster is made of, as its data sheets say. Rates are bytes per second, one way.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::simulator {

// How data travels between nodes, as far as its fixed cost goes.
struct Network {
  double rate = 0;          // of a GPU: its NIC's, or its share of the node's NICs
  double hop_us = 0;        // from a GPU's write until a GPU of another node sees its flag
  double message_rate = 0;  // writes per second that a GPU's NIC takes; 0: not known, and not what limits
};

// Whose GPUs: a library is written for one maker's. Of a machine that only its rates are known of, nobody knows.
enum class Vendor : std::uint8_t { unknown, nvidia, amd };

struct Machine {
  std::string name{};
  Vendor vendor = Vendor::unknown;
  int gpus_per_node = 8;  // that map one another's memory: the scale-up domain
  int nodes = 0;          // that there are; 0: as many as wanted
  int sms = 0;
  double sm_speed = 1;      // how fast an SM copies, compared with an H100's
  double memory_rate = 0;   // of a GPU's memory
  double memory_bytes = 0;  // of a GPU
  double link_rate = 0;     // of a GPU to the others of its node, all together
  Network network{};
  // Whether rows of this GPU, and of this network, are among those that the figures were fitted to
  // (call_figures.cpp).
  bool gpu_fitted = false;
  bool network_fitted = false;

  // How many GPUs a job can have here.
  [[nodiscard]] int gpus() const noexcept { return gpus_per_node * nodes; }
};

std::span<Machine const> known_machines();
std::vector<std::string_view> known_machine_names();
// Throws InvalidArgument, which names what there is.
Machine const& known_machine(std::string_view name);

}  // namespace switchyard::simulator
