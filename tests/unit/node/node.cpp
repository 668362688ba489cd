// Collectives of a node, and the Communicator around it.
#include "node/node.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "bootstrap/in_process_store.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "layout/topology.hpp"
#include "support/meeting.hpp"
#include "switchyard/communicator.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::plenty;
using test::run_threads;

std::vector<std::byte> bytes_of_rank(int rank, std::size_t size) {
  return std::vector<std::byte>(size, static_cast<std::byte>(rank + 1));
}

TEST(Node, AllGatherOfDifferentSizes) {
  constexpr int size = 5;
  auto const store = std::make_shared<InProcessStore>();
  // None, few, and more than a socket holds.
  std::size_t const sizes[size] = {0, 1, 1000, 3 << 20, 70000};
  run_threads(size, [&](int rank) {
    Node node(store, rank, size, plenty);
    for (int round = 0; round < 4; ++round) {
      auto const size_of = [&](int peer) { return sizes[(peer + round) % size]; };
      auto const all = node.all_gather(bytes_of_rank(rank, size_of(rank)));
      ASSERT_EQ(all.size(), static_cast<std::size_t>(size));
      for (int peer = 0; peer < size; ++peer)
        EXPECT_EQ(all[static_cast<std::size_t>(peer)], bytes_of_rank(peer, size_of(peer)));
    }
  });
}

TEST(Node, TheLargestValueAndNoLarger) {
  auto const store = std::make_shared<InProcessStore>();
  run_threads(2, [&](int rank) {
    Node node(store, rank, 2, plenty);
    std::vector<std::byte> mine = bytes_of_rank(rank, std::size_t{16} << 20);
    EXPECT_EQ(node.all_gather(mine)[static_cast<std::size_t>(1 - rank)], bytes_of_rank(1 - rank, mine.size()));
    mine.emplace_back();
    EXPECT_THROW(node.all_gather(mine), InvalidArgument);
    node.barrier();  // nothing had moved
  });
}

TEST(Node, BarrierWaitsForAll) {
  constexpr int size = 4;
  auto const store = std::make_shared<InProcessStore>();
  std::atomic<int> arrived = 0;
  run_threads(size, [&](int rank) {
    Node node(store, rank, size, plenty);
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      node.barrier();
      EXPECT_GE(arrived, round * size);
      node.barrier();
    }
  });
}

TEST(Node, PeerLostWhenOneLeaves) {
  constexpr int size = 5;
  auto const store = std::make_shared<InProcessStore>();
  run_threads(size, [&](int rank) {
    Node node(store, rank, size, plenty);
    if (rank == 3) return;
    Deadline const soon_enough(milliseconds{10000});
    EXPECT_THROW(node.all_gather(bytes_of_rank(rank, 10)), PeerLost);
    EXPECT_FALSE(soon_enough.expired());
    EXPECT_THROW(node.barrier(), PeerLost);  // and stays so
  });
}

TEST(Node, WhoHasTakenPartMayLeaveAtOnce) {
  constexpr int size = 4;
  for (int repeat = 0; repeat < 20; ++repeat) {
    auto const store = std::make_shared<InProcessStore>();
    run_threads(size, [&](int rank) {
      Node node(store, rank, size, plenty);
      auto const all = node.all_gather(bytes_of_rank(rank, 100000));
      EXPECT_EQ(all[0], bytes_of_rank(0, 100000));
    });
  }
}

TEST(Node, TimeoutNamesTheRankThatIsLate) {
  auto const store = std::make_shared<InProcessStore>();
  std::atomic<bool> done = false;
  run_threads(2, [&](int rank) {
    Node node(store, rank, 2, milliseconds{2000});
    if (rank == 1) {
      while (!done) std::this_thread::sleep_for(milliseconds{10});
      return;
    }
    try {
      node.barrier();
      ADD_FAILURE();
    } catch (Timeout const& error) {
      EXPECT_EQ(error.peer(), 1);
      EXPECT_EQ(error.rank(), 0);
      EXPECT_EQ(error.phase(), "barrier");
    }
    EXPECT_FALSE(node.is_lost(1));
    done = true;
  });
}

// One rank leaves before, one lives and comes too late: it finds that the others have given it up.
TEST(Node, GoesOnWithoutLostAndLateRanksWhereThatIsTolerated) {
  constexpr int size = 5;
  auto const store = std::make_shared<InProcessStore>();
  std::atomic<int> done = 0;
  run_threads(size, [&](int rank) {
    Node node(store, rank, size, milliseconds{1500});
    if (rank == 3) return;
    node.tolerate_loss(true);
    while (rank == 1 && done < 3) std::this_thread::sleep_for(milliseconds{10});
    for (int call = 0; call < 3; ++call) {
      auto const all = node.all_gather(bytes_of_rank(rank, 10));
      for (int peer = 0; peer < size; ++peer) {
        bool const there = peer == rank || (rank != 1 && peer != 1 && peer != 3);
        EXPECT_EQ(all[static_cast<std::size_t>(peer)], there ? bytes_of_rank(peer, 10) : std::vector<std::byte>{})
            << "rank " << peer << " as rank " << rank << " sees it";
        EXPECT_EQ(node.is_absent(peer), !there);
        if (!there) {
          EXPECT_TRUE(node.is_lost(peer));
        }
      }
      EXPECT_EQ(static_cast<bool>(node.exchange_fd(0)[3]), false);
      node.barrier();
    }
    ++done;
    while (rank != 1 && done < 4) std::this_thread::sleep_for(milliseconds{10});
    node.tolerate_loss(false);
    EXPECT_THROW(node.barrier(), PeerLost);
  });
}

TEST(Node, DifferentCallsAreToldApart) {
  auto const store = std::make_shared<InProcessStore>();
  std::atomic<int> refused = 0;
  run_threads(2, [&](int rank) {
    Node node(store, rank, 2, plenty);
    try {
      if (rank == 0)
        node.barrier();
      else
        node.all_gather({});
    } catch (InvalidArgument const&) {
      ++refused;
    } catch (PeerLost const&) {  // the other one found it first and left
    }
  });
  EXPECT_GE(refused, 1);
}

TEST(Node, RefusesNonsense) {
  auto const store = std::make_shared<InProcessStore>();
  EXPECT_THROW(Node(store, 0, 0, plenty), InvalidArgument);
  EXPECT_THROW(Node(store, 0, max_node_ranks + 1, plenty), InvalidArgument);
  EXPECT_THROW(Node(store, 2, 2, plenty), InvalidArgument);
  EXPECT_THROW(Node(store, -1, 2, plenty), InvalidArgument);
  EXPECT_THROW(Node(nullptr, 0, 1, plenty), InvalidArgument);
  EXPECT_THROW(Node(store, 0, 1, milliseconds{0}), InvalidArgument);
}

TEST(Node, TheMostRanks) {
  auto const store = std::make_shared<InProcessStore>();
  std::atomic<int> right = 0;
  run_threads(max_node_ranks, [&](int rank) {
    Node node(store, rank, max_node_ranks, plenty);
    auto const all = node.all_gather(bytes_of_rank(rank, 3));
    if (all.back() == bytes_of_rank(max_node_ranks - 1, 3)) ++right;
  });
  EXPECT_EQ(right, max_node_ranks);
}

TEST(Communicator, Alone) {
  Communicator communicator = Communicator::connect({});
  communicator.barrier();
  EXPECT_EQ(communicator.all_gather(bytes_of_rank(0, 4)).at(0), bytes_of_rank(0, 4));
  EXPECT_EQ(communicator.size(), 1);
}

TEST(Communicator, OverTcpRankZeroServes) {
  constexpr int size = 4;
  // A port that was free just now.
  std::uint16_t const port = TcpStoreServer({.listen = "127.0.0.1", .port = 0, .token = {}}).port();
  run_threads(size, [&](int rank) {
    CommunicatorOptions options;
    options.rank = rank;
    options.size = size;
    options.address = "localhost:" + std::to_string(port);
    options.token = "t";
    Communicator communicator = Communicator::connect(options);
    EXPECT_EQ(communicator.rank(), rank);
    // Rank 0, and the store with it, may be gone before the others are through this.
    EXPECT_EQ(communicator.all_gather(bytes_of_rank(rank, 9)).at(size - 1), bytes_of_rank(size - 1, 9));
  });
}

TEST(Communicator, OverTcpALauncherServes) {
  constexpr int size = 3;
  TcpStoreServer const server({.listen = "127.0.0.1", .port = 0, .token = "t"});
  run_threads(size, [&](int rank) {
    CommunicatorOptions options;
    options.rank = rank;
    options.size = size;
    options.address = "127.0.0.1:" + std::to_string(server.port());
    options.token = "t";
    options.serve = false;
    Communicator::connect(options).barrier();
  });
}

TEST(Communicator, RefusesNonsense) {
  auto const refused = [](auto change) {
    CommunicatorOptions options;
    change(options);
    EXPECT_THROW(Communicator::connect(options), InvalidArgument);
  };
  refused([](CommunicatorOptions& options) { options.rank = 1; });
  refused([](CommunicatorOptions& options) { options.size = max_ranks + 1; });
  refused([](CommunicatorOptions& options) { options.address = "nowhere"; });
  refused([](CommunicatorOptions& options) { options.timeout = milliseconds{-1}; });
  EXPECT_THROW(Communicator::join(nullptr, 0, 1), InvalidArgument);
}

}  // namespace
}  // namespace switchyard
