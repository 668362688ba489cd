// The decoding step of `switchyard bench --mode latency`, done with MPI_Alltoallv: times dispatch, combine and both
// together, checks them, and prints one JSON object. Run under mpirun; tools/compare.py does.
#include <mpi.h>

#include <array>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "measure.hpp"
#include "program.hpp"
#include "step.hpp"

namespace mpi_alltoall {

namespace {

void expect(bool holds, int expert, int source) {
  if (!holds)
    throw std::runtime_error("expert " + std::to_string(expert) + ": rows of rank " + std::to_string(source) +
                             " are wrong");
}

// The rows of an expert from a source; returns the first row after them.
std::int64_t check_part(Step const& step, Options const& options, Inputs const& sent,
                        std::array<int, 3> const& part, std::int64_t row) {
  auto const [global, expert, source] = part;
  std::int64_t const end = row + step.count(expert, source);
  for (std::size_t i = 0; i < sent.experts.size(); ++i) {
    if (sent.experts[i] != global) continue;
    expect(row < end, expert, source);
    auto const token = static_cast<std::int64_t>(i) / options.top_k;
    for (std::int64_t column = 0; column < options.hidden; ++column)
      expect(step.rows()[row * options.hidden + column] == value_at(source, token, column), expert, source);
    ++row;
  }
  expect(row == end, expert, source);
  return row;
}

void check_rows(Step const& step, Options const& options, World const& world) {
  Options without_x = options;
  without_x.hidden = 0;
  std::vector<Inputs> sent;
  for (int source = 0; source < world.size; ++source) sent.push_back(make_inputs(without_x, source));
  int const first = first_expert(world.rank, world, options.experts);
  std::int64_t row = 0;
  for (int expert = 0; expert < step.local_experts(); ++expert) {
    for (int source = 0; source < world.size; ++source)
      row =
          check_part(step, options, sent[static_cast<std::size_t>(source)], {first + expert, expert, source}, row);
  }
}

struct Times {
  std::vector<double> dispatch_us, combine_us, both_us;
};

// Inputs of two seeds in turn, so that no row is in the cache because it was sent just before.
Times measure(Step& step, std::array<Inputs, 2> const& inputs, std::array<Options, 2> const& options,
              World const& world) {
  Times times;
  std::vector<std::uint16_t> out(inputs[0].x.size());
  int const all = options[0].warmup + options[0].iterations;
  for (int i = 0; i < all; ++i) {
    auto const at = static_cast<std::size_t>(i % 2);
    bool const checked = i < 2 || i >= all - 2;
    double const dispatch = timed([&] { step.dispatch(inputs[at]); });
    if (checked) check_rows(step, options[at], world);
    // The experts hand back what they received.
    double const combine = timed([&] { step.combine(step.rows(), inputs[at], out.data()); });
    if (checked) check_combine(out.data(), inputs[at], options[at]);
    double const both = timed([&] {
      step.dispatch(inputs[at]);
      step.combine(step.rows(), inputs[at], out.data());
    });
    if (i < options[0].warmup) continue;
    times.dispatch_us.push_back(dispatch);
    times.combine_us.push_back(combine);
    times.both_us.push_back(both);
  }
  return times;
}

void print(Options const& options, World const& world, Times const& times) {
  double const bytes = static_cast<double>(options.tokens * options.top_k * options.hidden) * 2;
  std::printf("{\"schema\": \"switchyard-mpi-step/1\", \"ranks\": %d, \"tokens\": %lld, \"hidden\": %lld, ",
              world.size, static_cast<long long>(options.tokens), static_cast<long long>(options.hidden));
  std::printf("\"top_k\": %d, \"experts\": %d, \"routing\": \"uniform\", \"checked\": true, ", options.top_k,
              options.experts);
  print_part("dispatch", times.dispatch_us, bytes);
  std::printf(", ");
  print_part("combine", times.combine_us, bytes);
  std::printf(", ");
  print_part("both", times.both_us, 2 * bytes);
  std::printf("}\n");
}

void run(int argc, char** argv) {
  World world;
  MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world.size);
  std::array<Options, 2> options{parse(argc, argv), parse(argc, argv)};
  ++options[1].seed;
  std::array<Inputs, 2> const inputs{make_inputs(options[0], world.rank), make_inputs(options[1], world.rank)};
  Step step(options[0], world);
  Times const times = measure(step, inputs, options, world);
  if (world.rank == 0) print(options[0], world, times);
}

}  // namespace

}  // namespace mpi_alltoall

int main(int argc, char** argv) {
  return mpi_alltoall::run_program("mpi-step", argc, argv, mpi_alltoall::run);
}
