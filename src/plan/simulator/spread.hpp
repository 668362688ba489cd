// How far from a prediction measurements may lie.
#pragma once

#include <string>
#include <vector>

#include "plan/simulator/call_time.hpp"
#include "plan/simulator/job.hpp"

namespace switchyard::simulator {

// Of the normal distribution: nine of ten lie within so many standard deviations.
inline constexpr double nine_of_ten = 1.645;

struct Spread {
  double sigma = 0;                    // standard deviation of the logarithm
  std::vector<std::string> widened{};  // what was added to that of the fit, and why
};

Spread spread_of(Job const& job, int nodes, Operation operation);

}  // namespace switchyard::simulator
