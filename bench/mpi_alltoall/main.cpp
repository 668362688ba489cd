// The job of `switchyard bench`, done with MPI_Alltoallv: times dispatch and combine, checks both, and prints
// one JSON object. Run under mpirun; tools/compare.py does.
#include <mpi.h>

#include <cstdio>
#include <vector>

#include "check.hpp"
#include "exchange.hpp"
#include "measure.hpp"
#include "program.hpp"

namespace mpi_alltoall {

namespace {

struct Times {
  std::vector<double> dispatch_us, combine_us;
};

void progress(World const& world, int done, int all) {
  if (world.rank == 0) std::fprintf(stderr, "mpi: iteration %d of %d\n", done, all);
}

Times measure(Exchange& exchange, Inputs const& inputs, Options const& options, World const& world) {
  Times times;
  std::vector<std::uint16_t> out(inputs.x.size());
  for (int i = 0; i < options.warmup + options.iterations; ++i) {
    double const dispatch = timed([&] { exchange.dispatch(inputs); });
    if (i == 0) check_dispatch(exchange, options, world);
    double const combine = timed([&] { exchange.combine(exchange.rows(), inputs, out.data()); });
    if (i == 0) check_combine(out.data(), inputs, options);
    progress(world, i + 1, options.warmup + options.iterations);
    if (i < options.warmup) continue;
    times.dispatch_us.push_back(dispatch);
    times.combine_us.push_back(combine);
  }
  // And once more what the last, timed, iteration delivered.
  check_dispatch(exchange, options, world);
  check_combine(out.data(), inputs, options);
  return times;
}

// `rows`: received in a dispatch, by all ranks together; as many come back in a combine.
void print(Options const& options, World const& world, Times const& times, double rows) {
  double const bytes = rows / world.size * static_cast<double>(options.hidden) * 2;
  std::printf("{\"schema\": \"switchyard-mpi-alltoall/1\", \"ranks\": %d, \"tokens\": %lld, \"hidden\": %lld, ",
              world.size, static_cast<long long>(options.tokens), static_cast<long long>(options.hidden));
  std::printf("\"top_k\": %d, \"experts\": %d, \"routing\": \"uniform\", \"checked\": true, ", options.top_k,
              options.experts);
  print_part("dispatch", times.dispatch_us, bytes);
  std::printf(", ");
  print_part("combine", times.combine_us, bytes);
  std::printf("}\n");
}

void run(int argc, char** argv) {
  World world;
  MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world.size);
  Options const options = parse(argc, argv);
  Inputs const inputs = make_inputs(options, world.rank);
  Exchange exchange(options, world);
  Times const times = measure(exchange, inputs, options, world);

  double mine = exchange.received(), rows = 0;
  MPI_Reduce(&mine, &rows, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  if (world.rank == 0) print(options, world, times, rows);
}

}  // namespace

}  // namespace mpi_alltoall

int main(int argc, char** argv) {
  return mpi_alltoall::run_program("mpi-alltoall", argc, argv, mpi_alltoall::run);
}
