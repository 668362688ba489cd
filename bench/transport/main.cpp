// What the transport gives by itself between processes of two sides: GB/s one way and both ways at once, and half
// of a round trip, for writes of 4 KiB to 4 MiB. By itself it forks both sides; with --listen and --connect the two
// are where one likes. With --pairs several processes a side do so at a time, as the ranks of a node would, and
// GB/s are those of a side.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "layout/topology.hpp"
#include "measure.hpp"
#include "meeting.hpp"

namespace transport_rate {

namespace {

struct Options {
  transport::libfabric::Wish wish = transport::libfabric::wish_of_environment();
  bool messages = false;
  bool json = false;
  int pairs = 1;
  std::size_t window = 8;
  int repetitions = 5;
  double megabytes = 200;  // of a measurement and pair
  std::vector<std::size_t> kibibytes{4, 16, 64, 256, 1024, 4096};
  std::string listen;
  std::string connect;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Figures {
  std::size_t bytes;
  double one_way;
  double both_ways;
  double cpu_s_per_gb;  // both ways
  double half_trip_us;
};

Figures measure_size(Link& link, Team& team, std::size_t bytes, Options const& options, bool first) {
  auto const writes = static_cast<std::size_t>(options.megabytes * 1e6 / static_cast<double>(bytes));
  Load const load{bytes, options.window, std::clamp<std::size_t>(writes, 2 * options.window, 20000)};
  auto const trips = std::clamp<std::size_t>(writes / 4, 20, 300);
  std::vector<double> one;
  std::vector<double> both;
  std::vector<double> cpu;
  std::vector<double> trip;
  for (int i = 0; i < options.repetitions; ++i) {
    one.push_back(rate(link, team, load, Ways::one, first).gbps);
    Rate const at_once = rate(link, team, load, Ways::both, first);
    both.push_back(at_once.gbps);
    cpu.push_back(at_once.cpu_s_per_gb);
    trip.push_back(half_round_trip(link, bytes, trips, first));
  }
  return {bytes, median(one), median(both), median(cpu), median(trip)};
}

void print_head(transport::Capabilities const& can, Options const& options) {
  char const* const counted = can.counts_remotely ? "immediates" : "messages";
  if (options.json) {
    std::printf(
        "{\"schema\": \"switchyard-transport-rate/1\", \"provider\": \"%s\", \"nic\": \"%s\", "
        "\"counted_by\": \"%s\", \"pairs\": %d, \"window\": %zu, \"repetitions\": %d, \"sizes\": [",
        can.provider.c_str(), can.nic.c_str(), counted, options.pairs, options.window, options.repetitions);
    return;
  }
  std::string const pairs = options.pairs > 1 ? fmt::format(", {} pairs at a time", options.pairs) : "";
  std::printf("%s on %s, counted by %s, %zu slots, medians of %d%s\n\n", can.provider.c_str(), can.nic.c_str(),
              counted, options.window, options.repetitions, pairs.c_str());
  std::printf(
      "| bytes a write | GB/s one way | GB/s each way, both at once | half round trip, us |\n|---|---|---|---|\n");
}

void print_figures(Figures const& figures, Options const& options, bool last) {
  if (options.json) {
    std::printf(
        "{\"bytes\": %zu, \"one_way_gbps\": %.4f, \"both_ways_gbps\": %.4f, "
        "\"both_ways_cpu_s_per_gb\": %.4f, \"half_round_trip_us\": %.2f}%s",
        figures.bytes, figures.one_way, figures.both_ways, figures.cpu_s_per_gb, figures.half_trip_us,
        last ? "]}\n" : ", ");
  } else {
    std::printf("| %zu KiB | %.2f | %.2f | %.1f |\n", figures.bytes >> 10U, figures.one_way, figures.both_ways,
                figures.half_trip_us);
  }
  std::fflush(stdout);
}

void run_member(Options const& options, Team& team, int control, bool first) {
  transport::libfabric::EndpointOptions endpoint;
  endpoint.wish = options.wish;
  if (options.messages) endpoint.wish.counting = transport::libfabric::Counting::messages;
  std::size_t const largest = *std::ranges::max_element(options.kibibytes) << 10U;
  Link link(endpoint, options.window * largest, control);
  bool const prints = first && team.member() == 0;
  if (prints) print_head(link.capabilities(), options);
  for (std::size_t i = 0; i < options.kibibytes.size(); ++i) {
    Figures const figures = measure_size(link, team, options.kibibytes[i] << 10U, options, first);
    if (prints) print_figures(figures, options, i + 1 == options.kibibytes.size());
  }
}

bool run_side(Options const& options, Sockets const& controls, bool first) {
  Team team(options.pairs);
  return run_team(team, [&](int member) {
    team.be(member);
    run_member(options, team, controls[static_cast<std::size_t>(member)].get(), first);
  });
}

bool run_both(Options const& options) {
  Both both = socket_pairs(options.pairs);
  pid_t const parent = getpid();
  pid_t const child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) std::_Exit(1);
    both.first.clear();
    std::_Exit(run_side(options, both.second, false) ? 0 : 1);
  }
  both.second.clear();
  bool const good = run_side(options, both.first, true);
  int status = 0;
  waitpid(child, &status, 0);
  return good && status == 0;
}

bool run(Options const& options) {
  if (!options.listen.empty()) return run_side(options, accept_links(options.listen, options.pairs), false);
  if (!options.connect.empty()) return run_side(options, connect_links(options.connect, options.pairs), true);
  return run_both(options);
}

int run_program(int argc, char** argv) {
  Options options;
  CLI::App app{"rates of the transport between nodes, by itself"};
  app.add_option("--address", options.wish.address, "an address of this node to use, such as 127.0.0.1");
  app.add_option("--provider", options.wish.provider, "a provider of libfabric");
  app.add_flag("--messages", options.messages, "count by messages instead of immediates");
  app.add_option("--pairs", options.pairs, "processes of each side, each with one of the other")
      ->check(CLI::Range(1, switchyard::max_node_ranks));
  app.add_option("--window", options.window, "writes under way at most, of a process")->check(CLI::Range(1, 200));
  app.add_option("--sizes", options.kibibytes, "KiB of a write, one or several with commas between them")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  app.add_option("--repetitions", options.repetitions, "of each measurement")->check(CLI::Range(1, 1000));
  app.add_option("--megabytes", options.megabytes, "of each measurement, and of each process")
      ->check(CLI::Range(1.0, 1e6));
  auto* const listen = app.add_option("--listen", options.listen,
                                      "host:port to wait at for the other side; this one prints nothing");
  app.add_option("--connect", options.connect, "host:port at which the other side waits")->excludes(listen);
  app.add_flag("--json", options.json, "one JSON object in place of a table");
  CLI11_PARSE(app, argc, argv);
  return run(options) ? 0 : 1;
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
