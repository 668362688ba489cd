// Jobs of nodes whose addresses are of IPv6, and jobs that are given names in the place of addresses: from the
// store to the rows, with every value checked.
#include <sched.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>

#include "support/descriptors.hpp"
#include "support/low_latency_trip.hpp"
#include "support/node_calls.hpp"

namespace switchyard::test {
namespace {

enum class Given : std::uint8_t { addresses, names };

struct Addressing {
  Family family = Family::ipv4;
  Given given = Given::addresses;
};

void PrintTo(Addressing const& way, std::ostream* out) {
  *out << (way.given == Given::names ? "names of " : "") << (way.family == Family::ipv6 ? "IPv6" : "IPv4");
}

std::string name_of_node(int node) {
  return text("node", node, ".switchyard.test");
}

// Names of all nodes, which only processes that take it for their /etc/hosts know.
class HostsFile {
 public:
  explicit HostsFile(Family family)
      : path_(std::filesystem::temp_directory_path() / text("switchyard-hosts-", getpid())) {
    std::ofstream file(path_);
    for (int node = 0; node < num_nodes; ++node)
      file << Namespaces::address(node, 0, family) << ' ' << name_of_node(node) << '\n';
  }
  HostsFile(HostsFile const&) = delete;
  HostsFile& operator=(HostsFile const&) = delete;
  ~HostsFile() { std::filesystem::remove(path_); }

  // Of this process alone: its mounts are its own from here on.
  void take() const {
    bool const own = unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    if (!own || mount(path_.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr) != 0)
      throw std::runtime_error("cannot mount over /etc/hosts");
  }

 private:
  std::filesystem::path path_;
};

class NodeAddresses : public Nodes, public testing::WithParamInterface<Addressing> {
 protected:
  NodeAddresses() : Nodes(1, GetParam().family) {}

  [[nodiscard]] static bool by_name() { return GetParam().given == Given::names; }
  [[nodiscard]] static std::string host(int node) {
    return by_name() ? name_of_node(node) : Namespaces::address(node, 0, GetParam().family);
  }
  [[nodiscard]] static std::string store_host() {
    return !by_name() && GetParam().family == Family::ipv6 ? "[" + host(0) + "]" : host(0);
  }
};

INSTANTIATE_TEST_SUITE_P(Given, NodeAddresses,
                         testing::Values(Addressing{Family::ipv6, Given::addresses},
                                         Addressing{Family::ipv4, Given::names},
                                         Addressing{Family::ipv6, Given::names}));

// Control connections and endpoints, while all ranks have theirs: all of the family that nodes have, and none of
// the other one.
void check_connections(Communicator& communicator) {
  constexpr int rails = num_nodes - 1;
  bool const is_ipv6 = NodeAddresses::GetParam().family == Family::ipv6;
  communicator.barrier();
  int const ours = num_connections(is_ipv6 ? AF_INET6 : AF_INET);
  check(ours >= 2 * rails, "connections: expected at least ", 2 * rails, ", seen ", ours);
  check_equal(num_connections(is_ipv6 ? AF_INET : AF_INET6), 0, "connections of the other family");
  communicator.barrier();
}

void check_throughput(Communicator& communicator, Problem const& problem) {
  Buffer buffer(communicator, node_options(problem));
  for (int i = 0; i < 3; ++i) round_trip(problem, buffer);
  check_connections(communicator);
}

void check_low_latency(Communicator& communicator, SlotProblem const& problem) {
  std::unique_ptr<RankMemory> const memory = slot_engine().memory(communicator.rank());
  SlotRank rank{problem.the, communicator, *memory};
  LowLatencyBuffer buffer(communicator, rank.options());
  for (int i = 0; i < 3; ++i) slot_round_trip(problem, rank, buffer);
  check_connections(communicator);
}

// Where each rank can be reached follows from the store's address, or is said in the same words.
TEST_P(NodeAddresses, CarryBothModes) {
  Problem const problem = make_problem(node_case());
  SlotProblem const slots = make_slot_problem({.launch = Launch::processes,
                                               .ranks = num_node_ranks,
                                               .tokens = 16,
                                               .hidden = 200,
                                               .experts = 12,
                                               .top_k = 4});
  HostsFile const hosts(GetParam().family);
  for (bool const said : {false, true}) {
    auto const before = [&](int rank) {
      namespaces_->enter(node_of(rank));
      if (by_name()) hosts.take();
      if (said) setenv("SWITCHYARD_ADDRESS", host(node_of(rank)).c_str(), 1);
    };
    auto const body = [&](Communicator& communicator) {
      check(communicator.node_by_rank() == node_by_rank(), "nodes were not found as they are");
      check_throughput(communicator, problem);
      // Sums depend on the nodes, and the checks of slots take them from here.
      setenv("SWITCHYARD_TEST_NODES", std::to_string(num_nodes).c_str(), 1);
      check_low_latency(communicator, slots);
    };
    Processes processes(num_node_ranks, body, before, store_host());
    for (Outcome const& outcome : processes.wait())
      EXPECT_TRUE(outcome.ok) << outcome.what << "\n  SWITCHYARD_ADDRESS set: " << said;
  }
}

}  // namespace
}  // namespace switchyard::test
