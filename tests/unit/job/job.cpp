// Jobs of several nodes, whose ranks are threads: who finds whom, and collectives over rails.
#include "job/job.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "bootstrap/in_process_store.hpp"
#include "job/discovery.hpp"
#include "node/peer_exchange.hpp"
#include "node/peer_links.hpp"
#include "support/meeting.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::plenty;
using test::run_threads;

std::vector<std::byte> bytes_of_rank(int rank, std::size_t size) {
  return std::vector<std::byte>(size, static_cast<std::byte>(rank * 7 + 1));
}

// By rank, the name of its node.
using Names = std::vector<std::string>;

JobTerms terms_of(Names const& names, int rank, milliseconds timeout = plenty) {
  return {.rank = rank,
          .size = static_cast<int>(names.size()),
          .node = names[static_cast<std::size_t>(rank)],
          .timeout = timeout};
}

class JobOfNodes : public testing::TestWithParam<Names> {};

TEST_P(JobOfNodes, FindsItsNodes) {
  auto const store = std::make_shared<InProcessStore>();
  Names const& names = GetParam();
  run_threads(static_cast<int>(names.size()), [&](int rank) {
    Job const job(store, terms_of(names, rank));
    Topology const& topology = job.topology();
    for (std::size_t one = 0; one < names.size(); ++one)
      for (std::size_t other = 0; other < names.size(); ++other)
        EXPECT_EQ(topology.node_of(static_cast<int>(one)) == topology.node_of(static_cast<int>(other)),
                  names[one] == names[other]);
    EXPECT_EQ(topology.node_of(0), 0);
    EXPECT_EQ(job.node()->size(), topology.num_ranks_of(topology.node_of(rank)));
    EXPECT_EQ(job.node()->rank(), topology.local_rank_of(rank));
  });
}

TEST_P(JobOfNodes, AllGatherOfDifferentSizes) {
  auto const store = std::make_shared<InProcessStore>();
  Names const& names = GetParam();
  auto const size = static_cast<int>(names.size());
  // None, few, and more than a socket holds.
  std::vector<std::size_t> const sizes{0, 1, 1000, 3 << 20, 70000};
  run_threads(size, [&](int rank) {
    Job job(store, terms_of(names, rank));
    for (int round = 0; round < 4; ++round) {
      auto const size_of = [&](int peer) { return sizes[static_cast<std::size_t>(peer + round) % sizes.size()]; };
      auto const all = job.all_gather(bytes_of_rank(rank, size_of(rank)));
      ASSERT_EQ(all.size(), names.size());
      for (int peer = 0; peer < size; ++peer)
        EXPECT_EQ(all[static_cast<std::size_t>(peer)], bytes_of_rank(peer, size_of(peer))) << peer;
      job.barrier();
    }
  });
}

TEST_P(JobOfNodes, BarrierWaitsForAll) {
  auto const store = std::make_shared<InProcessStore>();
  Names const& names = GetParam();
  auto const size = static_cast<int>(names.size());
  std::atomic<int> entered{0};
  run_threads(size, [&](int rank) {
    Job job(store, terms_of(names, rank));
    for (int round = 1; round <= 20; ++round) {
      ++entered;
      job.barrier();
      EXPECT_GE(entered.load(), round * size);
      job.barrier();
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Nodes, JobOfNodes,
                         testing::Values(Names{"a"}, Names{"a", "b"}, Names{"a", "a", "b", "b"},
                                         Names{"a", "b", "a", "b", "a", "b"}, Names{"a", "b", "b", "b", "c", "c"},
                                         Names{"a", "b", "c", "d", "e", "f", "g"}, Names{"x", "x", "x"}));

TEST(JobNodes, RanksWithoutANameShareTheMachine) {
  auto const store = std::make_shared<InProcessStore>();
  run_threads(4, [&](int rank) {
    Job const job(store, terms_of({"", "", "far", ""}, rank));
    EXPECT_EQ(job.topology().num_nodes(), 2);
    EXPECT_EQ(job.topology().num_ranks_of(0), 3);
  });
}

TEST(JobNodes, SeveralNodesThroughTheCommunicator) {
  auto const store = Communicator::in_process_store();
  run_threads(4, [&](int rank) {
    auto communicator = Communicator::join(store, rank, 4, plenty, rank % 2 == 0 ? "even" : "odd");
    EXPECT_EQ(communicator.num_nodes(), 2);
    EXPECT_EQ(communicator.node_by_rank(), (std::vector{0, 1, 0, 1}));
    communicator.barrier();
  });
}

TEST(JobNodes, RefusesNonsense) {
  auto const store = std::make_shared<InProcessStore>();
  EXPECT_THROW(Job(store, {.rank = 0, .size = 0, .timeout = plenty}), InvalidArgument);
  EXPECT_THROW(Job(store, {.rank = 0, .size = max_ranks + 1, .timeout = plenty}), InvalidArgument);
  EXPECT_THROW(Job(store, {.rank = 2, .size = 2, .timeout = plenty}), InvalidArgument);
  EXPECT_THROW(Job(nullptr, {.rank = 0, .size = 2, .timeout = plenty}), InvalidArgument);
  EXPECT_THROW(Job(store, {.rank = 0, .size = 1, .timeout = milliseconds{0}}), InvalidArgument);
  EXPECT_THROW(Job(store, {.rank = 0, .size = 2, .node = std::string(64, 'n'), .timeout = plenty}),
               InvalidArgument);
}

// A node with too many ranks is refused on all of them, without a wait for anybody.
TEST(JobNodes, TooManyRanksOnANode) {
  auto const store = std::make_shared<InProcessStore>();
  run_threads(max_node_ranks + 2, [&](int rank) {
    Names names(max_node_ranks + 1, "crowded");
    names.emplace_back("empty");
    try {
      Job const job(store, terms_of(names, rank));
      ADD_FAILURE() << "rank " << rank << " has a job";
    } catch (InvalidArgument const& error) {
      EXPECT_NE(std::string(error.what()).find("ranks of node 0: expected 1..64, seen 65"), std::string::npos)
          << error.what();
    }
  });
}

// A rank that does not come is named by all others.
TEST(JobNodes, ARankThatDoesNotCome) {
  auto const store = std::make_shared<InProcessStore>();
  Names const names{"a", "a", "b", "b"};
  run_threads(4, [&](int rank) {
    if (rank == 2) return;
    try {
      Job const job(store, terms_of(names, rank, milliseconds{500}));
      ADD_FAILURE() << "rank " << rank << " has a job";
    } catch (Timeout const& error) {
      EXPECT_EQ(error.peer(), 2) << error.what();
      EXPECT_EQ(error.rank(), rank);
    }
  });
}

// A rank that leaves is named by all others, with its node, whichever rail it is on; and so it is afterwards.
TEST(JobNodes, ARankThatLeaves) {
  for (int const leaver : {0, 1, 2, 5}) {
    auto const store = std::make_shared<InProcessStore>();
    Names const names{"a", "a", "b", "b", "c", "c"};
    std::barrier survivors_done(5);  // so that nobody blames a survivor for leaving
    run_threads(6, [&](int rank) {
      Job job(store, terms_of(names, rank));
      if (rank == leaver) return;
      for (int again = 0; again < 2; ++again) {
        auto const begin = std::chrono::steady_clock::now();
        try {
          job.barrier();
          ADD_FAILURE() << "rank " << rank << " passed";
        } catch (PeerLost const& error) {
          EXPECT_EQ(error.peer(), leaver) << error.what();
          std::string const name = "rank " + std::to_string(leaver) + " (node " + std::to_string(leaver / 2) + ")";
          EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
        }
        // Far below the deadline: the second time nobody waits for others who call or do not.
        EXPECT_LT(std::chrono::steady_clock::now() - begin, plenty / 3);
        if (rank == 1) break;
      }
      survivors_done.arrive_and_wait();
    });
  }
}

// A rank that is late is named by all others: those who wait for ranks that wait for it do not blame these.
TEST(JobNodes, ARankThatIsLate) {
  auto const store = std::make_shared<InProcessStore>();
  Names const names{"a", "a", "a", "b", "b"};
  std::atomic<int> ended{0};
  run_threads(5, [&](int rank) {
    Job job(store, terms_of(names, rank, milliseconds{1500}));
    if (rank != 4) {
      try {
        job.barrier();
        ADD_FAILURE() << "rank " << rank << " passed";
      } catch (Timeout const& error) {
        EXPECT_EQ(error.peer(), 4) << "rank " << rank << ": " << error.what();
      } catch (Error const& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
      }
      ++ended;
    }
    // Who leaves at once would be lost to a rank whose deadline has not quite passed.
    while (ended < 4) std::this_thread::sleep_for(milliseconds{5});
  });
}

// A rank knows of the machines of all ranks elsewhere, whether it has a connection to them or not; of its own node
// there is nothing to say.
TEST(JobNodes, EveryMachineElsewhereAnswers) {
  auto const store = std::make_shared<InProcessStore>();
  Names const names{"a", "a", "a", "b", "c", "c"};
  run_threads(6, [&](int rank) {
    Job const job(store, terms_of(names, rank));
    for (int other = 0; other < 6; ++other) {
      bool const elsewhere = names[static_cast<std::size_t>(other)] != names[static_cast<std::size_t>(rank)];
      EXPECT_EQ(job.silence_text(other).starts_with("; its machine answered "), elsewhere)
          << "rank " << rank << " of rank " << other << ": '" << job.silence_text(other) << "'";
    }
    EXPECT_EQ(job.silence_text(-1) + job.silence_text(6), "");
  });
}

// What ends the making of rails at one rank is known at once on all nodes, by its reason.
TEST(JobNodes, ABadAddressOfOneRank) {
  for (std::string const bad : {"0.0.0.0", "203.0.113.1"}) {
    auto const store = std::make_shared<InProcessStore>();
    Names const names{"a", "a", "b", "b", "c", "c"};
    run_threads(6, [&](int rank) {
      JobTerms terms = terms_of(names, rank);
      if (rank == 3) terms.address = bad;
      try {
        Job const job(store, terms);
        ADD_FAILURE() << "rank " << rank << " has a job";
      } catch (InvalidArgument const& error) {
        EXPECT_NE(std::string(error.what()).find("SWITCHYARD_ADDRESS"), std::string::npos) << error.what();
        EXPECT_NE(std::string(error.what()).find(bad), std::string::npos) << error.what();
      } catch (Error const& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
      }
    });
  }
}

// A rank with another token is refused, and its node learns why. The other nodes learn that, or lose it, or ranks
// that have lost it and left before they could say so; and nobody waits for the deadline.
TEST(JobNodes, AnotherTokenOfOneRank) {
  auto const store = std::make_shared<InProcessStore>();
  Names const names{"a", "a", "b", "b", "c", "c"};
  auto const begin = std::chrono::steady_clock::now();
  run_threads(6, [&](int rank) {
    JobTerms terms = terms_of(names, rank);
    terms.key = Key::of_token(rank == 2 ? "another" : "the job's");
    try {
      Job const job(store, terms);
      ADD_FAILURE() << "rank " << rank << " has a job";
    } catch (InvalidArgument const& error) {
      EXPECT_NE(std::string(error.what()).find("wrong token"), std::string::npos) << error.what();
    } catch (PeerLost const& error) {
      EXPECT_NE(rank / 2, 1) << error.what();
      EXPECT_NE(error.peer() / 2, rank / 2) << "rank " << rank << ": " << error.what();
    }
  });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, plenty / 3);
}

// A part that is half sent when its rank gives up is not filled up with anything else.
TEST(PeerLinks, NothingComesInThePlaceOfTheRestOfAPart) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  std::vector<UniqueFd> ours(2);
  std::vector<UniqueFd> theirs(2);
  ours[1] = UniqueFd(ends[0]);
  theirs[0] = UniqueFd(ends[1]);
  auto const members = members_of_one_node(2);
  PeerLinks one(std::move(ours), members[0], members);
  PeerLinks other(std::move(theirs), members[1], members);
  std::vector<std::byte> const large(8 << 20, std::byte{7});
  CollectiveCall const call{.kind = Collective::all_gather};
  EXPECT_THROW(one.exchange(call, large, -1, Deadline(milliseconds{100})), Timeout);
  one.say_held_up(members[1]);
  one.say_failed(Timeout("a text"));
  try {
    static_cast<void>(other.exchange(call, large, -1, Deadline(plenty)));
    ADD_FAILURE() << "half a part was taken for a whole one";
  } catch (PeerLost const& error) {
    EXPECT_EQ(error.peer(), 0) << error.what();
  }
}

// Rank 2 stops when it has sent its part to rank 0 and not yet to rank 1. So rank 0 is one call further than rank
// 1, and learns from it that it waits, too.
TEST(PeerLinks, WhoIsBehindBlamesTheRankThatItWaitsFor) {
  auto const members = members_of_one_node(3);
  std::array<std::vector<UniqueFd>, 3> sockets{std::vector<UniqueFd>(3), std::vector<UniqueFd>(3),
                                               std::vector<UniqueFd>(3)};
  for (auto const& [one, other] : {std::pair{0U, 1U}, {0U, 2U}, {1U, 2U}}) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    sockets[one][other] = UniqueFd(ends[0]);
    sockets[other][one] = UniqueFd(ends[1]);
  }
  PeerLinks ahead(std::move(sockets[0]), members[0], members);
  PeerLinks behind(std::move(sockets[1]), members[1], members);
  MessageHeader const part{.kind = Collective::barrier};
  ASSERT_EQ(::send(sockets[2][0].get(), &part, sizeof part, MSG_NOSIGNAL),
            std::ssize(std::as_bytes(std::span(&part, 1))));
  auto const waits_for_two = [](PeerLinks& links, std::uint64_t calls, milliseconds timeout) {
    try {
      for (std::uint64_t call = 0; call < calls; ++call)
        static_cast<void>(links.exchange({.sequence = call}, {}, -1, Deadline(timeout)));
      ADD_FAILURE() << "a rank that stopped was not missed";
    } catch (Timeout const& error) {
      EXPECT_EQ(error.peer(), 2) << error.what();
    }
  };
  std::thread late([&] { waits_for_two(behind, 1, milliseconds{1000}); });
  waits_for_two(ahead, 2, milliseconds{2000});
  late.join();
}

// Links whose messages have tags, and somebody between their ends.
class TaggedLinks : public testing::Test {
 protected:
  // An end of rank 0 or 1, and the other end of its socket.
  struct End {
    std::unique_ptr<PeerLinks> links;
    UniqueFd outside;
    std::vector<Contribution> exchange(std::uint64_t sequence, std::span<std::byte const> mine) const {
      CollectiveCall const call{.kind = Collective::all_gather, .sequence = sequence};
      return links->exchange(call, mine, -1, Deadline(milliseconds{50}));
    }
    void give(std::span<std::byte const> bytes) const {
      ASSERT_EQ(::send(outside.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), std::ssize(bytes));
    }
    [[nodiscard]] std::vector<std::byte> take() const {
      std::vector<std::byte> bytes(4096);
      ssize_t const got = ::recv(outside.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
      bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
      return bytes;
    }
  };
  static End end_of(std::size_t rank) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    std::vector<UniqueFd> sockets(2);
    sockets[1 - rank] = UniqueFd(ends[0]);
    MessageTags const tags[] = {MessageTags(Key::of_token("of rank 0")), MessageTags(Key::of_token("of rank 1"))};
    std::vector<std::optional<LinkTags>> of_links(2);
    of_links[1 - rank] = LinkTags{.to_send = tags[rank], .to_expect = tags[1 - rank]};
    auto const members = members_of_one_node(2);
    return {.links = std::make_unique<PeerLinks>(std::move(sockets), members[rank], members, std::move(of_links)),
            .outside = UniqueFd(ends[1])};
  }
  // What rank 0 sends in its first call. It then waits in vain.
  static std::vector<std::byte> message_of(std::span<std::byte const> part) {
    End const end = end_of(0);
    EXPECT_THROW(end.exchange(0, part), Timeout);
    return end.take();
  }
};

TEST_F(TaggedLinks, APartThatNobodyChangedComes) {
  auto const part = test::bytes_of("a part");
  auto const message = message_of(part);
  End const end = end_of(1);
  end.give(message);
  auto const all = end.exchange(0, {});
  EXPECT_TRUE(std::ranges::equal(all.at(0).bytes, part));
}

TEST_F(TaggedLinks, NoticesGoBeforeAPart) {
  End const one = end_of(0);
  one.links->say_held_up({.rank = 7, .node = 3});
  EXPECT_THROW(one.exchange(0, test::bytes_of("a part")), Timeout);
  End const other = end_of(1);
  other.give(one.take());
  EXPECT_TRUE(std::ranges::equal(other.exchange(0, {}).at(0).bytes, test::bytes_of("a part")));
}

TEST_F(TaggedLinks, AFailureIsToldAsItIs) {
  End const one = end_of(0);
  one.links->say_failed(Timeout("a text", {.peer = 5}));
  End const other = end_of(1);
  other.give(one.take());
  try {
    static_cast<void>(other.exchange(0, {}));
    ADD_FAILURE() << "a failure was not heard";
  } catch (Timeout const& error) {
    EXPECT_EQ(error.peer(), 5);
    EXPECT_STREQ(error.what(), "a text");
  }
}

TEST_F(TaggedLinks, AnyByteThatWasChangedIsNoticed) {
  auto const message = message_of(test::bytes_of("a part"));
  ASSERT_GT(message.size(), 30U);
  for (std::size_t at = 0; at < message.size(); ++at) {
    auto changed = message;
    changed[at] ^= std::byte{1};
    End const end = end_of(1);
    end.give(changed);
    EXPECT_THROW(end.exchange(0, {}), Error) << "byte " << at;
  }
}

// As the next part, with the number of the next call.
TEST_F(TaggedLinks, ARepeatedPartIsNoticed) {
  auto message = message_of(test::bytes_of("a part"));
  End const end = end_of(1);
  end.give(message);
  static_cast<void>(end.exchange(0, {}));
  std::uint64_t const next = 1;
  std::memcpy(message.data() + offsetof(MessageHeader, sequence), &next, sizeof next);
  end.give(message);
  EXPECT_THROW(end.exchange(1, {}), SystemError);
}

TEST_F(TaggedLinks, AFailureThatNobodySaidIsNotBelieved) {
  struct {
    MessageHeader header{
        .magic = message_magic, .kind = Collective::failed, .sequence = 0, .length = sizeof(FailureHead) + 8};
    FailureHead head{.code = static_cast<std::uint32_t>(ErrorCode::peer_lost), .peer = 1};
    std::array<char, 8> text{'f', 'o', 'r', 'g', 'e', 'd', '!', '!'};
    Tag tag{};
  } const forged;
  End const end = end_of(1);
  end.give(std::as_bytes(std::span(&forged, 1)));
  try {
    static_cast<void>(end.exchange(0, {}));
    ADD_FAILURE() << "a forged failure was taken for a part";
  } catch (SystemError const& error) {
    EXPECT_EQ(std::string_view(error.what()).find("forged"), std::string_view::npos) << error.what();
  }
}

// Calls that differ are refused on both sides of a rail.
TEST(JobNodes, DifferentCalls) {
  auto const store = std::make_shared<InProcessStore>();
  run_threads(2, [&](int rank) {
    Job job(store, terms_of({"a", "b"}, rank));
    EXPECT_THROW(rank == 0 ? job.barrier() : static_cast<void>(job.all_gather({})), InvalidArgument);
  });
}

}  // namespace
}  // namespace switchyard
