#include "cli/bench/statistics.hpp"

#include <algorithm>
#include <cmath>

namespace switchyard::cli {

double percentile(std::span<double const> samples, double p) {
  if (samples.empty()) return 0;
  std::vector<double> sorted(samples.begin(), samples.end());
  std::sort(sorted.begin(), sorted.end());
  double const place = std::clamp(p, 0.0, 100.0) / 100.0 * static_cast<double>(sorted.size() - 1);
  auto const low = static_cast<std::size_t>(std::floor(place));
  auto const high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - static_cast<double>(low));
}

Summary summarise(std::span<double const> samples) {
  return {.p50 = percentile(samples, 50),
          .p95 = percentile(samples, 95),
          .p99 = percentile(samples, 99),
          .p999 = percentile(samples, 99.9),
          .max = percentile(samples, 100)};
}

std::vector<double> max_over_ranks(std::span<std::vector<double> const> rows) {
  if (rows.empty()) return {};
  std::vector<double> result = rows.front();
  for (auto const& row : rows.subspan(1)) {
    for (std::size_t i = 0; i < std::min(result.size(), row.size()); ++i) result[i] = std::max(result[i], row[i]);
  }
  return result;
}

}  // namespace switchyard::cli
