// Nodes that have two NICs each.
#include <array>

#include "support/node_calls.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::test {
namespace {

class NodeNics : public Nodes {
 protected:
  NodeNics() : Nodes(2) {}
};

// Every byte is right, and what a node sends goes through both in about equal parts: chunks take them in turn.
TEST_F(NodeNics, BothCarryRows) {
  setenv("SWITCHYARD_FABRIC_NICS", "eth0,eth1", 1);
  Case c = node_case();
  c.tokens = 256;
  c.hidden = 2048;
  Problem const problem = make_problem(c);
  std::vector<std::array<std::uint64_t, 2>> before(num_nodes);
  for (int node = 0; node < num_nodes; ++node)
    for (int nic = 0; nic < 2; ++nic) before[index(node)][index(nic)] = namespaces_->sent(node, nic);
  Shared<std::array<std::uint64_t, num_node_ranks>> const bytes;  // by rank, written to other nodes
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem));
    for (int i = 0; i < by_scale(1, 3); ++i) round_trip(problem, buffer);
    (*bytes)[index(communicator.rank())] = wire_count(buffer).bytes;
  });
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
  unsetenv("SWITCHYARD_FABRIC_NICS");
  for (int node = 0; node < num_nodes; ++node) {
    std::uint64_t rows = 0;
    for (int rank = 0; rank < num_node_ranks; ++rank)
      if (node_of(rank) == node) rows += (*bytes)[index(rank)];
    for (int nic = 0; nic < 2; ++nic) {
      std::uint64_t const sent = namespaces_->sent(node, nic) - before[index(node)][index(nic)];
      EXPECT_GT(sent, rows * 2 / 5) << "node " << node << " through eth" << nic << ", of " << rows;
    }
  }
}

}  // namespace
}  // namespace switchyard::test
