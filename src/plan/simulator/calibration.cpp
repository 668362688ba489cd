#include "plan/simulator/calibration.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "base/check.hpp"
#include "plan/simulator/call_time.hpp"
#include "plan/simulator/spread.hpp"

namespace switchyard::simulator {

namespace {

constexpr std::size_t least_sizes = 3;
// However well a run is fitted, another one a minute later differs by that much, where others use the machine, too.
constexpr double least_spread = 0.1;
constexpr double most_spread = 3;  // an interval of a hundredth to the hundredfold says nothing anyway
// Between the two rates. More is noise of small calls.
constexpr double most_ratio = 1000;
// Between sizes of caches that are tried.
constexpr double step = 1.1;

// Of so few errors the distribution is Student's, not the normal one. Its nine of ten: a table, then the first
// terms of the expansion.
double student(int freedom) {
  constexpr std::array table{6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812};
  if (freedom <= static_cast<int>(table.size())) return table[static_cast<std::size_t>(freedom - 1)];
  return nine_of_ten + (std::pow(nine_of_ten, 3) + nine_of_ten) / (4 * freedom);
}

// Calls of one size, together.
struct Size {
  std::int64_t tokens = 0;
  double bytes = 0;
  double us = 0;
  double scatter = 0;  // standard deviation of the logarithm between calls
};

struct Sizes {
  std::vector<Size> list{};
  double scatter = 0;  // in the middle of sizes
};

void check(std::string const& name, std::span<TimedCall const> calls) {
  for (TimedCall const& call : calls) {
    require(std::isfinite(call.us) && call.us > 0, "{}.us: expected a finite number above 0 for {} tokens, seen {}",
            name, call.tokens, call.us);
    require(std::isfinite(call.bytes) && call.bytes >= 0,
            "{}.bytes: expected a finite number, 0 or more, for {} tokens, seen {}", name, call.tokens, call.bytes);
  }
}

Sizes by_size(std::string const& name, std::span<TimedCall const> calls) {
  check(name, calls);
  std::map<std::int64_t, std::vector<TimedCall>> groups;
  for (TimedCall const& call : calls) groups[call.tokens].push_back(call);
  require(groups.size() >= least_sizes, "{}.tokens: expected {} or more different numbers, seen {}", name,
          least_sizes, groups.size());
  Sizes sizes;
  for (auto const& [tokens, group] : groups) {
    auto const count = static_cast<double>(group.size());
    double sum = 0;
    double bytes = 0;
    for (TimedCall const& call : group) {
      sum += std::log(call.us) / count;
      bytes += call.bytes / count;
    }
    double square = 0;
    for (TimedCall const& call : group) square += std::pow(std::log(call.us) - sum, 2);
    sizes.list.push_back({.tokens = tokens,
                          .bytes = bytes,
                          .us = std::exp(sum),
                          .scatter = group.size() > 1 ? std::sqrt(square / (count - 1)) : 0});
  }
  std::vector<double> scatters;
  for (Size const& size : sizes.list) scatters.push_back(size.scatter);
  std::ranges::sort(scatters);
  sizes.scatter = scatters[scatters.size() / 2];
  return sizes;
}

// Times are linear in these: microseconds of an empty call, and of a byte at each of the rates.
using Line = std::array<double, 3>;

// Terms of a size, for a line.
Line terms_of(Size const& size, double cache_bytes) {
  double const beyond = cache_bytes > 0 && size.bytes > 0 ? size.bytes / (size.bytes + cache_bytes) : 0;
  return {1, size.bytes * (1 - beyond), size.bytes * beyond};
}

// Solves the normal equations of those coefficients whose bit is set; the others are 0.
std::optional<Line> solve(std::span<Size const> sizes, double cache_bytes, unsigned free) {
  std::array<std::array<double, 4>, 3> rows{};
  for (Size const& size : sizes) {
    Line const terms = terms_of(size, cache_bytes);
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t column = 0; column < 3; ++column)
        rows[row][column] += terms[row] * terms[column] / (size.us * size.us);
      rows[row][3] += terms[row] / size.us;
    }
  }
  // Gauss and Jordan. Each coefficient has a unit of its own, so a pivot is compared with what it began as.
  std::array<double, 3> whole{rows[0][0], rows[1][1], rows[2][2]};
  Line line{};
  for (std::size_t at = 0; at < 3; ++at) {
    if ((free >> at & 1U) == 0) continue;
    if (!(rows[at][at] > 1e-9 * whole[at])) return std::nullopt;
    for (std::size_t other = 0; other < 3; ++other) {
      if (other == at || (free >> other & 1U) == 0) continue;
      double const factor = rows[other][at] / rows[at][at];
      for (std::size_t column = 0; column < 4; ++column) rows[other][column] -= factor * rows[at][column];
    }
  }
  for (std::size_t at = 0; at < 3; ++at)
    if ((free >> at & 1U) != 0) line[at] = rows[at][3] / rows[at][at];
  return line;
}

double square_error(std::span<Size const> sizes, double cache_bytes, Line const& line) {
  double sum = 0;
  for (Size const& size : sizes) {
    Line const terms = terms_of(size, cache_bytes);
    double const us = line[0] * terms[0] + line[1] * terms[1] + line[2] * terms[2];
    sum += std::pow(std::log(us / size.us), 2);
  }
  return sum;
}

struct Candidate {
  Line line{};
  double error = std::numeric_limits<double>::infinity();
};

// The best line that can be: nothing takes less than no time, bytes take some, and caches are no slower than
// memory. cache_bytes 0: one rate for all bytes.
Candidate best_line(std::span<Size const> sizes, double cache_bytes) {
  Candidate best;
  unsigned const bytes = cache_bytes > 0 ? 0b110U : 0b010U;
  for (unsigned const free : {bytes | 1U, bytes}) {
    auto const line = solve(sizes, cache_bytes, free);
    if (!line) continue;
    auto const [fixed, cached, memory] = *line;
    if (fixed < 0 || !(cached > 0)) continue;
    if (cache_bytes > 0 && (memory < cached || memory > most_ratio * cached)) continue;
    double const error = square_error(sizes, cache_bytes, *line);
    if (error < best.error) best = {.line = *line, .error = error};
  }
  return best;
}

// Both operations, with one size of caches between them.
struct Fit {
  double cache_bytes = 0;
  Candidate dispatch{};
  Candidate combine{};
  double spread = std::numeric_limits<double>::infinity();  // what it misses
};

Fit fit_with(Sizes const& dispatch, Sizes const& combine, double cache_bytes) {
  Fit fit{.cache_bytes = cache_bytes,
          .dispatch = best_line(dispatch.list, cache_bytes),
          .combine = best_line(combine.list, cache_bytes)};
  int const fitted = cache_bytes > 0 ? 7 : 4;
  int const freedom = static_cast<int>(dispatch.list.size() + combine.list.size()) - fitted;
  if (freedom < 1) return fit;
  fit.spread = std::sqrt((fit.dispatch.error + fit.combine.error) / freedom) * student(freedom) / nine_of_ten;
  return fit;
}

// The fit that promises the narrowest interval: a size of caches must be worth the figures that it adds.
Fit best_fit(Sizes const& dispatch, Sizes const& combine) {
  Fit best = fit_with(dispatch, combine, 0);
  // Between sizes that were timed, so that both rates show.
  double low = 0;
  double high = 0;
  for (Sizes const* const sizes : {&dispatch, &combine})
    for (Size const& size : sizes->list) {
      if (size.bytes <= 0) continue;
      low = low > 0 ? std::min(low, size.bytes) : size.bytes;
      high = std::max(high, size.bytes);
    }
  if (low <= 0) return best;
  int const steps = static_cast<int>(std::floor(std::log(high / 4 / low) / std::log(step)));
  for (int at = 0; at <= steps; ++at) {
    Fit const fit = fit_with(dispatch, combine, low * std::pow(step, at));
    if (fit.spread < best.spread) best = fit;
  }
  return best;
}

OperationFit operation_fit(Sizes const& sizes, Fit const& fit, Line const& line) {
  OperationFit result;
  CallFigures& figures = result.figures;
  figures.fixed_us = line[0];
  figures.cached_rate = 1e6 / line[1];
  figures.memory_rate = fit.cache_bytes > 0 ? 1e6 / line[2] : figures.cached_rate;
  figures.spread = std::clamp(std::hypot(fit.spread, sizes.scatter), least_spread, most_spread);
  for (Size const& size : sizes.list) {
    double const us = figures.fixed_us + shared_us(size.bytes, fit.cache_bytes, figures);
    result.residuals.push_back(
        {.tokens = size.tokens, .us = size.us, .error = us / size.us - 1, .scatter = size.scatter});
  }
  return result;
}

}  // namespace

Library calibrated_library() {
  Library mine = library("switchyard");
  for (ModeFigures* const mode : {&mine.throughput, &mine.latency}) {
    for (CallFigures* const figures : {&mode->dispatch, &mode->combine})
      *figures = {.sm_rows_per_token = 1, .sm_rows_per_rank_row = 1, .sm_rows_per_node_row = 2};
  }
  return mine;
}

ModeFit fit_mode(std::string_view mode, std::span<TimedCall const> dispatch, std::span<TimedCall const> combine) {
  std::string const prefix(mode);
  Sizes const out = by_size(prefix + ".dispatch", dispatch);
  Sizes const back = by_size(prefix + ".combine", combine);
  Fit const fit = best_fit(out, back);
  for (auto const& [name, candidate] : {std::pair{".dispatch", &fit.dispatch}, std::pair{".combine", &fit.combine}})
    require(std::isfinite(candidate->error),
            "{}{}.us: expected times that grow with tokens, seen none that do: the machine is busy with something "
            "else; run it again when nothing else does, or with more --iterations or --tokens",
            prefix, name);
  return {.cache_bytes = fit.cache_bytes,
          .dispatch = operation_fit(out, fit, fit.dispatch.line),
          .combine = operation_fit(back, fit, fit.combine.line)};
}

}  // namespace switchyard::simulator
