#include "base/nearest.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace switchyard {

namespace {

// Levenshtein's distance, a row of the table at a time.
std::size_t distance(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < to.size(); ++j) {
      std::size_t const exchanged = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({exchanged, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string_view nearest(std::string_view word, std::span<std::string_view const> candidates) {
  // Two letters in any word, and a quarter of a long one.
  std::size_t least = std::max<std::size_t>(2, word.size() / 4) + 1;
  std::string_view found;
  for (std::string_view const candidate : candidates) {
    std::size_t const changes = distance(word, candidate);
    if (changes >= least) continue;
    least = changes;
    found = candidate;
  }
  return found;
}

std::string did_you_mean(std::string_view word, std::span<std::string_view const> candidates) {
  std::string_view const meant = nearest(word, candidates);
  return meant.empty() ? std::string() : fmt::format("; did you mean {}?", meant);
}

}  // namespace switchyard
