// From a few calls that were timed on a machine to the figures by which its other calls are predicted.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "plan/simulator/call_figures.hpp"

namespace switchyard::simulator {

// Switchyard's figures as far as no machine has a say in them: which rows calls move. The rest is to be fitted.
Library calibrated_library();

struct TimedCall {
  std::int64_t tokens = 0;  // a rank
  double bytes = 0;         // shared_bytes() of the call
  double us = 0;
};

// One number of tokens, all calls of it together.
struct Residual {
  std::int64_t tokens = 0;
  double us = 0;       // measured, the geometric mean
  double error = 0;    // predicted / measured - 1
  double scatter = 0;  // standard deviation of the logarithm between calls
};

struct OperationFit {
  CallFigures figures{};  // fixed cost, both rates, spread
  std::vector<Residual> residuals{};
};

struct ModeFit {
  double cache_bytes = 0;
  OperationFit dispatch{};
  OperationFit combine{};
};

// Least squares of relative errors. Both operations share the size of caches; where one rate says as much as two,
// both are the same. Calls of a number of tokens may have been timed several times: what they differ by, and what
// the fit misses, is the spread. `mode` is for errors. Throws InvalidArgument for times that are no times, and for
// fewer than 3 different numbers of tokens.
ModeFit fit_mode(std::string_view mode, std::span<TimedCall const> dispatch, std::span<TimedCall const> combine);

}  // namespace switchyard::simulator
