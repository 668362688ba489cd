// What a rank measured, by its GPU's clock.
#pragma once

#include <algorithm>
#include <array>

#include "kernels.hpp"

namespace example {

inline double length_us(Span const& span) {
  return span.end > span.begin ? static_cast<double>(span.end - span.begin) / 1e3 : 0;
}

struct Phase {
  std::array<char, 12> name{};
  double us = 0;
};

// One run; a part that it was without has no length.
struct Run {
  Span dispatch;
  Span product;
  std::array<Phase, 8> phases{};  // of the dispatch; those behind the last have no name

  [[nodiscard]] double total_us() const {
    return length_us({std::min(dispatch.begin, product.begin), std::max(dispatch.end, product.end)});
  }
  [[nodiscard]] double overlap_us() const {
    return length_us({std::max(dispatch.begin, product.begin), std::min(dispatch.end, product.end)});
  }
};

// Travels between ranks as it is.
struct Measured {
  std::array<char, 16> gpu{};  // which: ranks on one GPU have one clock
  int product_blocks = 0;
  int width = 0;
  Run dispatch_alone;
  Run product_alone;
  Run one_after_the_other;
  Run together;
};

}  // namespace example
