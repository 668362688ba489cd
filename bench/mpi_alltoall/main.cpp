// The job of `switchyard bench`, done with MPI_Alltoallv: times dispatch and combine, checks both, and prints
// one JSON object. Run under mpirun; tools/compare_mpi.py does.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <vector>

#include "check.hpp"
#include "exchange.hpp"

namespace mpi_alltoall {

namespace {

struct Times {
  std::vector<double> dispatch_us, combine_us;
};

// Microseconds of `work`, from a common start to the end of the slowest rank.
template <typename Work>
double timed(Work const& work) {
  MPI_Barrier(MPI_COMM_WORLD);
  double const start = MPI_Wtime();
  work();
  double mine = (MPI_Wtime() - start) * 1e6, slowest = 0;
  MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

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

void print_part(char const* name, std::vector<double> times, double bytes) {
  std::sort(times.begin(), times.end());
  std::size_t const n = times.size();
  double const median = (times[(n - 1) / 2] + times[n / 2]) / 2;
  double const p99 = times[std::min(n - 1, n * 99 / 100)];
  std::printf(
      "\"%s\": {\"dtype\": \"bf16\", \"median_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
      "\"recv_bytes_per_rank\": %.0f, \"gbps_per_rank\": %.3f}",
      name, median, p99, times.back(), bytes, bytes / median / 1e3);
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
  MPI_Init(&argc, &argv);
  try {
    mpi_alltoall::run(argc, argv);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "mpi-alltoall: %s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
}
