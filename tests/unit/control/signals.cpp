// Flags and the doorbell between two ranks. Sleeps last longer than deadlines here, so a signal that does not wake
// its peer makes a wait last until its deadline.
#include "control/signals.hpp"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bootstrap/in_process_store.hpp"
#include "support/meeting.hpp"
#include "support/plain_segment.hpp"
#include "switchyard/interrupt.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t control_bytes = 4096;

// The flag that a rank waits for, behind its header.
std::atomic<std::uint64_t>& flag_of(SymmetricHeap const& heap, int rank) {
  return *reinterpret_cast<std::atomic<std::uint64_t>*>(heap.control(rank) +
                                                        align_up(sizeof(ControlHeader), cache_line));
}

// The two ranks of node 1 of a job of several nodes.
NodeMembers const two_of_node_1{.ranks = {{.rank = 5, .node = 1}, {.rank = 7, .node = 1}}, .key = "node/1"};

// Runs both ranks, each with a node and a heap of its own.
void run_pair(NodeMembers const& members,
              std::function<void(std::shared_ptr<SymmetricHeap>, std::shared_ptr<Node>)> const& body) {
  InProcessStore store;
  std::vector<std::shared_ptr<Segment>> const segments{std::make_shared<PlainSegment>(2 * control_bytes),
                                                       std::make_shared<PlainSegment>(2 * control_bytes)};
  run_threads(2, [&](int rank) {
    auto const node = std::make_shared<Node>(store, members, rank, plenty);
    body(std::make_shared<SymmetricHeap>(segments, rank, control_bytes), node);
    node->barrier();  // nobody is lost before all have seen what they wait for
  });
}

void play(std::chrono::microseconds spin, bool yields) {
  constexpr std::uint64_t rounds = 20000;
  run_pair({.ranks = members_of_one_node(2), .key = "node"}, [&](auto const& heap, auto const& node) {
    int const rank = heap->rank();
    Signals signals(heap, node, {.timeout = plenty, .spin = spin, .yields = yields, .nap = 2 * plenty});
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      if (rank == 0) signals.publish(1, flag_of(*heap, 1), round);
      Deadline const deadline = signals.deadline();
      ASSERT_NO_THROW(signals.wait(flag_of(*heap, rank), {1 - rank, round, "a game"}, deadline));
      ASSERT_FALSE(deadline.expired()) << "nobody woke rank " << rank << " in round " << round;
      if (rank == 1) signals.publish(0, flag_of(*heap, 0), round);
    }
  });
}

TEST(Signals, WakeWhoSleepsAtOnce) {
  play(std::chrono::microseconds{0}, false);
}

TEST(Signals, WakeWhoYieldsBeforeItSleeps) {
  play(std::chrono::microseconds{3}, true);
}

// What `call` throws; an Error that says so when it throws nothing.
Error error_of(std::function<void()> const& call) {
  try {
    call();
  } catch (Error const& error) {
    return error;
  }
  return SystemError("nothing was thrown");
}

TEST(Signals, NameRanksOfTheJob) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    if (heap->rank() == 1) return;
    Signals signals(heap, node, {.timeout = std::chrono::milliseconds{20}});
    Error const error = error_of([&] { signals.wait(flag_of(*heap, 0), {1, 3, "a game"}, signals.deadline()); });
    EXPECT_EQ(error.code(), ErrorCode::timeout);
    EXPECT_EQ(std::string(error.what())
                  .find("rank 5 (node 1): waited 20 ms (timeout, or SWITCHYARD_TIMEOUT_MS) for "
                        "rank 7 (node 1) during a game: expected epoch 3, seen 0"),
              0U)
        << error.what();
    EXPECT_EQ(error.rank(), 5);
    EXPECT_EQ(error.peer(), 7);
  });
}

// The sleep would outlast the test, and nobody rings.
TEST(Signals, GoOnWithTheNetworkWhileTheyWait) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    int turns = 0;
    auto& flag = flag_of(*heap, heap->rank());
    auto const idle = [&] {
      if (++turns == 1000) flag.store(1);
    };
    Signals signals(heap, node, {.timeout = plenty, .spin = plenty, .nap = 2 * plenty}, {.idle = idle});
    EXPECT_NO_THROW(signals.wait(flag, {1 - heap->rank(), 1, "a game"}, signals.deadline()));
    EXPECT_EQ(turns, 1000);
  });
}

TEST(Signals, TellTheNodeWhatWentWrongElsewhere) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    auto const fails = [&] {
      if (heap->rank() == 0)
        throw PeerLost("rank 5 (node 1): rank 2 (node 0) ended", {.rank = 5, .peer = 2, .phase = "elsewhere"});
    };
    Signals signals(heap, node, {.timeout = plenty}, {.idle = fails});
    Error const error = error_of([&] {
      signals.wait(flag_of(*heap, heap->rank()), {1 - heap->rank(), 1, "a game"}, signals.deadline());
    });
    std::string const expected = heap->rank() == 0
                                     ? "rank 5 (node 1): rank 2 (node 0) ended; this buffer has failed"
                                     : "rank 7 (node 1): stopped because rank 5 (node 1) reported: rank "
                                       "5 (node 1): rank 2 (node 0) ended; this buffer has failed";
    EXPECT_EQ(std::string(error.what()).find(expected), 0U) << error.what();
    EXPECT_EQ(error.code(), ErrorCode::peer_lost);
    EXPECT_EQ(error.rank(), 5);
    EXPECT_EQ(error.peer(), 2);
    EXPECT_EQ(error.phase(), "elsewhere");
    EXPECT_THROW(signals.check_usable(), PeerLost);
  });
}

// What is thrown over nodes while the own deadline is over, but hardly so.
TEST(Signals, LetWaitsForOtherNodesEndFirst) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    Deadline const deadline(std::chrono::milliseconds{1});
    auto& flag = flag_of(*heap, heap->rank());
    auto const idle = [&] {
      if (deadline.expired()) flag.store(1);
    };
    Signals signals(heap, node, {.timeout = plenty}, {.idle = idle});
    EXPECT_NO_THROW(signals.wait(flag, {1 - heap->rank(), 1, "a game"}, deadline));
  });
}

TEST(Signals, WaitNoLongerThanAskedForOnOneNode) {
  run_pair({.ranks = members_of_one_node(2), .key = "node"}, [](auto const& heap, auto const& node) {
    Deadline const deadline(std::chrono::milliseconds{1});
    auto& flag = flag_of(*heap, heap->rank());
    auto const too_late = [&] {
      if (deadline.expired()) flag.store(1);
    };
    auto const wait = [&](Signals& signals) { signals.wait(flag, {1 - heap->rank(), 1, "a game"}, deadline); };
    while (!deadline.expired()) {
    }
    Signals signals(heap, node, {.timeout = plenty}, {.idle = too_late});
    EXPECT_THROW(wait(signals), Timeout);
  });
}

TEST(Signals, SayWhomTheyWaitFor) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    if (heap->rank() == 1) return;
    std::vector<int> named;
    Signals signals(heap, node, {.timeout = std::chrono::milliseconds{40}},
                    {.idle = [] {}, .on_held_up = [&](Member const& member) { named.push_back(member.rank); }});
    EXPECT_THROW(signals.wait(flag_of(*heap, 0), {1, 1, "a game"}, signals.deadline()), Timeout);
    EXPECT_FALSE(named.empty());
    EXPECT_EQ(named, std::vector(named.size(), 7));
  });
}

// Whoever waits for a rank that waits itself names the rank that this one names, if it has said so of late.
TEST(Signals, NameWhomTheirPeerWaitsFor) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    constexpr std::chrono::milliseconds timeout{200};
    Signals signals(heap, node, {.timeout = timeout},
                    {.idle = [] {}, .silence_text = [](int rank) { return fmt::format("; of rank {}", rank); }});
    auto const culprit_of_wait = [&] {
      Error const error = error_of([&] {
        signals.wait(flag_of(*heap, heap->rank()), {1, 1, "a game"}, signals.deadline());
      });
      return std::pair{error.peer(), std::string(error.what())};
    };
    node->barrier();
    if (heap->rank() == 1) {
      Deadline const end(3 * timeout);
      while (!end.expired() && !signals.has_failed()) signals.say_held_up({.rank = 3, .node = 0});
      node->barrier();
      node->barrier();
      return;
    }
    auto const [peer, text] = culprit_of_wait();
    EXPECT_EQ(peer, 3);
    EXPECT_NE(text.find("for rank 7 (node 1), which waits for rank 3 (node 0)"), std::string::npos) << text;
    EXPECT_NE(text.find("; of rank 3;"), std::string::npos) << "what is said of its machine: " << text;
    node->barrier();
    signals.reset();
    EXPECT_EQ(culprit_of_wait().first, 7) << "what was said is old";
    node->barrier();
  });
}

TEST(Signals, EndWhenTheirCallerIsInterrupted) {
  run_pair(two_of_node_1, [](auto const& heap, auto const& node) {
    InterruptScope const scope([]() noexcept { return true; });
    Signals signals(heap, node, {.timeout = plenty, .nap = std::chrono::milliseconds{1}}, {.idle = [] {}});
    EXPECT_THROW(signals.wait(flag_of(*heap, heap->rank()), {1 - heap->rank(), 1, "a game"}, signals.deadline()),
                 SystemError);
  });
}

}  // namespace
}  // namespace switchyard::test
