#include "team.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace transport_rate {

namespace {

constexpr std::chrono::seconds longest_wait{30};  // longer than a link waits without progress

std::size_t bytes_of(int size) {
  return static_cast<std::size_t>(size) * sizeof(double);
}

double* shared_numbers(int size) {
  void* const memory = mmap(nullptr, bytes_of(size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no memory to share between processes");
  return static_cast<double*>(memory);
}

[[noreturn]] void run_child(int member, pid_t parent, std::function<void(int)> const& body) {
  // Dies with its parent, also when that died just before this call.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) std::_Exit(1);
  try {
    body(member);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "transport-rate: %s\n", error.what());
    std::_Exit(1);
  }
  std::exit(0);
}

}  // namespace

void Team::Unmap::operator()(double* seconds) const noexcept {
  munmap(seconds, bytes);
}

Team::Team(int size)
    : barrier_(switchyard::cli::SharedBarrier::create(size)),
      memory_(shared_numbers(size), Unmap{bytes_of(size)}),
      seconds_(memory_.get(), static_cast<std::size_t>(size)) {}

std::int64_t Team::align() {
  return barrier_->wait(member_, longest_wait);
}

// Numbers are written before the first barrier and read between it and the second, which keeps the next ones away.
template <typename Fold>
double Team::fold(double seconds, Fold const& of_all) {
  seconds_[static_cast<std::size_t>(member_)] = seconds;
  align();
  double const result = of_all();
  align();
  return result;
}

double Team::slowest(double seconds) {
  return fold(seconds, [this] { return *std::ranges::max_element(seconds_); });
}

double Team::sum(double seconds) {
  return fold(seconds, [this] { return std::accumulate(seconds_.begin(), seconds_.end(), 0.0); });
}

bool run_team(Team& team, std::function<void(int)> const& body) {
  std::fflush(nullptr);  // or the children would print it again
  pid_t const parent = getpid();
  std::vector<pid_t> children;
  for (int member = 0; member < team.size(); ++member) {
    pid_t const child = fork();
    if (child < 0) throw std::runtime_error("fork failed");
    if (child == 0) run_child(member, parent, body);
    children.push_back(child);
  }
  bool good = true;
  for (std::size_t left = children.size(); left > 0; --left) {
    int status = 0;
    pid_t const child = waitpid(-1, &status, 0);
    auto const member = std::ranges::find(children, child) - children.begin();
    if (status != 0) team.abandon(static_cast<int>(member));
    good = good && status == 0;
  }
  return good;
}

}  // namespace transport_rate
