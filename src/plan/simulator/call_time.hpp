// How long one operation takes, part by part, from what it moves. docs/plan.md has the model on one page.
#pragma once

#include <cstdint>
#include <string_view>

#include "plan/simulator/job.hpp"
#include "plan/simulator/traffic.hpp"

namespace switchyard::simulator {

enum class Operation : std::uint8_t { dispatch, combine };

// What a call waits for most.
enum class Bottleneck : std::uint8_t { fixed_cost, sms, memory, link, nic, messages };
constexpr std::string_view name_of(Bottleneck bottleneck) noexcept {
  switch (bottleneck) {
    case Bottleneck::fixed_cost: return "fixed cost";
    case Bottleneck::sms: return "SMs";
    case Bottleneck::memory: return "memory";
    case Bottleneck::link: return "NVLink";
    case Bottleneck::nic: return "NIC";
    case Bottleneck::messages: return "messages";
  }
  return "?";
}

// In microseconds.
struct CallTime {
  double fixed = 0;   // launch, flags, hops between nodes
  double sms = 0;     // what each resource needs for what it moves; they work side by side
  double memory = 0;  // that ranks share, of a machine that was calibrated
  double link = 0;
  double nic = 0;
  double messages = 0;
  double fill = 0;  // of the pipeline
  double total = 0;
  Bottleneck bottleneck = Bottleneck::fixed_cost;
};

// How much more than the mean of all ranks the rank in question moves.
struct LoadRatio {
  double link = 1;
  double nic = 1;
};

// How many bytes all ranks that share a memory read and write there in a call, on a machine that was calibrated.
// Ranks that share one wait for what all of them move, others for their own.
double shared_bytes(Job const& job, Traffic const& traffic, Operation operation, double link_ratio);

// How long so many bytes take: the more they are, the fewer of them find a place in caches.
double shared_us(double bytes, double cache_bytes, CallFigures const& figures);

CallTime time_call(Job const& job, int nodes, Traffic const& traffic, Operation operation, LoadRatio const& ratio);

}  // namespace switchyard::simulator
