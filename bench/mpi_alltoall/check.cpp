#include "check.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

#include "bf16.hpp"

namespace mpi_alltoall {

namespace {

void expect(bool holds, char const* what, std::int64_t row) {
  if (!holds) throw std::runtime_error(std::string(what) + " is wrong in row " + std::to_string(row));
}

bool same_row(std::uint16_t const* row, int source, std::int64_t token, std::int64_t hidden) {
  for (std::int64_t column = 0; column < hidden; ++column) {
    if (row[column] != value_at(source, token, column)) return false;
  }
  return true;
}

// The rows that `source` must have sent here, in order.
void check_source(Exchange const& exchange, Options const& options, World const& world, int source) {
  Options without_x = options;
  without_x.hidden = 0;
  Inputs const sent = make_inputs(without_x, source);
  std::int64_t row = exchange.from().first[static_cast<std::size_t>(source)];
  std::int64_t const end = row + exchange.from().rows[static_cast<std::size_t>(source)];
  std::int64_t const first = first_expert(world.rank, world, options.experts);
  std::int64_t const last = first_expert(world.rank + 1, world, options.experts);

  for (std::int64_t token = 0; token < options.tokens; ++token) {
    bool ours = false;
    for (int k = 0; k < options.top_k; ++k) {
      auto const at = static_cast<std::size_t>(token * options.top_k + k);
      bool const local = sent.experts[at] >= first && sent.experts[at] < last;
      // The first local expert of a token opens its row, so `row` is there for all later ones.
      if (local && !ours) expect(row < end, "the number of rows", row);
      ours = ours || local;
    }
    if (!ours) continue;
    expect(exchange.source_tokens()[row] == token, "the source token", row);
    expect(same_row(exchange.rows() + row * options.hidden, source, token, options.hidden), "x", row);
    for (int k = 0; k < options.top_k; ++k) {
      auto const at = static_cast<std::size_t>(token * options.top_k + k);
      bool const local = sent.experts[at] >= first && sent.experts[at] < last;
      std::int64_t const here = row * options.top_k + k;
      expect(exchange.experts()[here] == (local ? sent.experts[at] - first : -1), "an expert id", row);
      expect(exchange.weights()[here] == (local ? sent.weights[at] : 0.0F), "a weight", row);
    }
    ++row;
  }
  expect(row == end, "the number of rows", row);
}

}  // namespace

void check_dispatch(Exchange const& exchange, Options const& options, World const& world) {
  for (int source = 0; source < world.size; ++source) check_source(exchange, options, world, source);
}

void check_combine(std::uint16_t const* out, Inputs const& inputs, Options const& options) {
  for (std::int64_t token = 0; token < options.tokens; ++token) {
    double weight = 0;
    for (int k = 0; k < options.top_k; ++k)
      weight += inputs.weights[static_cast<std::size_t>(token * options.top_k + k)];
    for (std::int64_t column = 0; column < options.hidden; ++column) {
      std::int64_t const at = token * options.hidden + column;
      double const expected = weight * to_float(inputs.x[static_cast<std::size_t>(at)]);
      // Half a unit in the last place of bf16, and a little for the sums in f32.
      expect(std::abs(to_float(out[at]) - expected) <= std::abs(expected) * 0x1.01p-8, "the combined value", token);
    }
  }
}

}  // namespace mpi_alltoall
