// Times of an exchange, and how they are printed.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace mpi_alltoall {

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

inline void print_part(char const* name, std::vector<double> times, double bytes) {
  std::sort(times.begin(), times.end());
  std::size_t const n = times.size();
  double const median = (times[(n - 1) / 2] + times[n / 2]) / 2;
  double const p99 = times[std::min(n - 1, n * 99 / 100)];
  std::printf(
      "\"%s\": {\"dtype\": \"bf16\", \"median_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
      "\"recv_bytes_per_rank\": %.0f, \"gbps_per_rank\": %.3f}",
      name, median, p99, times.back(), bytes, bytes / median / 1e3);
}

}  // namespace mpi_alltoall
