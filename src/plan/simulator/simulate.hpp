// Predicts a job's dispatch and combine. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "plan/simulator/call_time.hpp"
#include "plan/simulator/job.hpp"
#include "plan/simulator/traffic.hpp"

namespace switchyard::simulator {

// Nine of ten measurements lie between `low` and `high`.
struct Interval {
  double low = 0;
  double high = 0;
};

struct OperationPlan {
  CallTime time{};        // of the rank that has most to do, which all wait for
  double median_us = 0;   // of the rank in the middle
  double p90_us = 0;      // of one that nine of ten are no slower than
  double counts_us = 0;   // the round of counts before it, where nobody knows them
  Interval us{};          // around time.total
  double link_bytes = 0;  // of a rank
  double nic_bytes = 0;
  double messages = 0;
  double messages_per_second = 0;  // of a rank
};

struct CallPlan {
  int nodes = 1;
  int sms = 0;
  int sources = 0;  // whose routing was counted
  OperationPlan dispatch{};
  OperationPlan combine{};
  std::int64_t memory_bytes = 0;       // of a rank: what one call's results and expert outputs take
  std::vector<std::string> widened{};  // why intervals are wider than the fit alone makes them
};

// `sources`: the routing of some ranks, or of all. Throws InvalidArgument when the job cannot be.
CallPlan simulate(Job job, std::span<SourceIds const> sources);

}  // namespace switchyard::simulator
