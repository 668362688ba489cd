// What the transport gives by itself between two processes: GB/s one way and both ways at once, and half of a round
// trip, for writes of 4 KiB to 4 MiB. By itself it forks its peer; with --listen and --connect the two are where
// one likes.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "bootstrap/address.hpp"
#include "measure.hpp"

namespace transport_rate {

namespace {

struct Options {
  transport::libfabric::Wish wish = transport::libfabric::wish_of_environment();
  bool messages = false;
  std::size_t window = 8;
  int repetitions = 5;
  double megabytes = 200;  // of a measurement
  std::string listen;
  std::string connect;
};

constexpr std::size_t sizes[] = {4 << 10U, 16 << 10U, 64 << 10U, 256 << 10U, 1 << 20U, 4 << 20U};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void measure_size(Link& link, std::size_t bytes, Options const& options, bool first) {
  auto const writes = static_cast<std::size_t>(options.megabytes * 1e6 / static_cast<double>(bytes));
  Load const load{bytes, options.window, std::clamp<std::size_t>(writes, 2 * options.window, 20000)};
  std::vector<double> one;
  std::vector<double> both;
  std::vector<double> trip;
  for (int i = 0; i < options.repetitions; ++i) {
    one.push_back(rate(link, load, Ways::one, first));
    both.push_back(rate(link, load, Ways::both, first));
    trip.push_back(half_round_trip(link, bytes, 300, first));
  }
  if (!first) return;
  std::printf("| %zu KiB | %.2f | %.2f | %.1f |\n", bytes >> 10U, median(one), median(both), median(trip));
  std::fflush(stdout);
}

void run(Options const& options, int control, bool first) {
  transport::libfabric::EndpointOptions endpoint;
  endpoint.wish = options.wish;
  if (options.messages) endpoint.wish.counting = transport::libfabric::Counting::messages;
  Link link(endpoint, options.window * sizes[std::size(sizes) - 1], control);
  if (first) {
    std::printf("%s on %s, counted by %s, %zu slots, medians of %d\n\n", link.capabilities().provider.c_str(),
                link.capabilities().nic.c_str(), link.capabilities().counts_remotely ? "immediates" : "messages",
                options.window, options.repetitions);
    std::printf(
        "| bytes a write | GB/s one way | GB/s each way, both at once | half round trip, us "
        "|\n|---|---|---|---|\n");
  }
  for (std::size_t const bytes : sizes) measure_size(link, bytes, options, first);
}

int run_forked(Options const& options) {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("socketpair failed");
  pid_t const child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  close(ends[child == 0 ? 0 : 1]);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run(options, ends[1], false);
    return 0;
  }
  run(options, ends[0], true);
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}

switchyard::UniqueFd meet_over_tcp(Options const& options) {
  bool const serves = options.connect.empty();
  auto const where =
      switchyard::parse_host_port(serves ? options.listen : options.connect, "--listen or --connect");
  std::vector<switchyard::InetAddress> const found = switchyard::resolve(where);
  if (found.empty()) throw std::runtime_error("no address for " + where.text());
  switchyard::InetAddress const& address = found.front();
  switchyard::UniqueFd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!serves) {
    if (connect(fd.get(), address.get(), address.length()) != 0)
      throw std::runtime_error("nobody listens at " + options.connect);
    return fd;
  }
  int const yes = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(fd.get(), address.get(), address.length()) != 0 || listen(fd.get(), 1) != 0) {
    throw std::runtime_error("cannot listen at " + options.listen);
  }
  return switchyard::UniqueFd(accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

int run_program(int argc, char** argv) {
  Options options;
  CLI::App app{"rates of the transport between nodes, by itself"};
  app.add_option("--address", options.wish.address, "an address of this node to use, such as 127.0.0.1");
  app.add_option("--provider", options.wish.provider, "a provider of libfabric");
  app.add_flag("--messages", options.messages, "count by messages instead of immediates");
  app.add_option("--window", options.window, "writes under way at most")->check(CLI::Range(1, 200));
  app.add_option("--repetitions", options.repetitions, "of each measurement")->check(CLI::Range(1, 1000));
  app.add_option("--megabytes", options.megabytes, "of each measurement")->check(CLI::Range(1.0, 1e6));
  app.add_option("--listen", options.listen, "host:port to wait at for the other process, which prints nothing");
  app.add_option("--connect", options.connect, "host:port at which the other process waits");
  CLI11_PARSE(app, argc, argv);
  if (options.listen.empty() && options.connect.empty()) return run_forked(options);
  switchyard::UniqueFd const control = meet_over_tcp(options);
  run(options, control.get(), !options.connect.empty());
  return 0;
}

}  // namespace

}  // namespace transport_rate

int main(int argc, char** argv) {
  try {
    return transport_rate::run_program(argc, argv);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "transport-rate: %s\n", error.what());
    return 1;
  }
}
