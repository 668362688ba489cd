#include "start.hpp"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <string>

namespace mpi_alltoall {

namespace {

constexpr double time_to_leave = 0.5e-3;

// Whether all ranks are on the machine that was booted as this one was. Collective.
bool share_a_machine() {
  constexpr std::size_t length = 36;
  std::string mine;
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::getline(file, mine);
  mine.resize(length);
  std::array<char, length> first{};
  std::copy(mine.begin(), mine.end(), first.begin());
  MPI_Bcast(first.data(), static_cast<int>(length), MPI_CHAR, 0, MPI_COMM_WORLD);
  int const same = mine.compare(0, length, first.data(), length) == 0 ? 1 : 0;
  int all = 0;
  MPI_Allreduce(&same, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  return all == 1;
}

}  // namespace

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double start_together() {
  static bool const one_clock = share_a_machine();
  double const came = monotonic_seconds();
  double last = 0;
  MPI_Allreduce(&came, &last, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  if (!one_clock) return monotonic_seconds();
  double const start = last + time_to_leave;
  while (monotonic_seconds() < start) ::sched_yield();
  return start;
}

}  // namespace mpi_alltoall
