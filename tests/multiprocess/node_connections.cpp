// What a rank of a job of several nodes holds open: connections along its rails, and to no other rank.
#include "support/descriptors.hpp"
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

int num_network_connections() {
  return num_connections(AF_INET) + num_connections(AF_INET6);
}

// 4 nodes of 4: there are 12 ranks elsewhere, and 3 rails.
TEST(NodeConnections, AreAlongRails) {
  constexpr int rails = 3;
  Case c{.launch = Launch::processes, .ranks = 16, .tokens = 40, .hidden = 64, .experts = 32, .top_k = 6};
  for (int rank = 0; rank < c.ranks; ++rank) c.nodes.push_back(rank / 4);
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    communicator.barrier();
    check_equal(num_network_connections(), rails, "connections of a communicator");
    Buffer buffer(communicator, options_for(p));
    round_trip(p, buffer);  // with rows for ranks of all nodes
    communicator.barrier();
    // A control connection each, and one or two of the transport's: either end may have begun.
    int const connections = num_network_connections();
    check(connections >= 2 * rails && connections <= 3 * rails, "connections: expected ", 2 * rails, " to ",
          3 * rails, ", seen ", connections);
  });
}

}  // namespace
}  // namespace switchyard::test
