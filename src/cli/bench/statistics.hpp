// Order statistics of measured times.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard::cli {

// The p-th percentile (0 to 100), linearly interpolated between neighbours; 0 for no samples.
double percentile(std::span<double const> samples, double p);

struct Summary {
  double p50 = 0;
  double p95 = 0;
  double p99 = 0;
  double p999 = 0;
  double max = 0;
};
Summary summarise(std::span<double const> samples);

// Element-wise largest of one equally long row a rank.
std::vector<double> max_over_ranks(std::span<std::vector<double> const> rows);

}  // namespace switchyard::cli
