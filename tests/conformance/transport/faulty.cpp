// That a faulty endpoint does wrong what it says it does: otherwise what passes over it has shown nothing.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <string>

#include "conformance/transport/suite.hpp"
#include "support/check.hpp"
#include "support/played_nodes.hpp"
#include "transport/faulty/drops.hpp"
#include "transport/faulty/endpoint.hpp"
#include "transport/loopback/loopback.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
using transport::Event;
using transport::Write;
using transport::faulty::Drop;
using transport::faulty::DropOnPurpose;
using transport::faulty::Faults;
using transport::faulty::FaultyEndpoint;
using transport::faulty::Loss;

BackEnd with(Faults faults) {
  return {.name = "faulty", .make = [faults](int count, std::uint64_t seed) mutable {
            std::vector<std::unique_ptr<Endpoint>> endpoints;
            for (faults.number = 0; faults.number < count; ++faults.number) {
              faults.seed = seed;
              endpoints.push_back(std::make_unique<FaultyEndpoint>(transport::loopback::make_endpoint({}), faults));
            }
            return endpoints;
          }};
}

FaultyEndpoint& faulty_of(Member& member) {
  return dynamic_cast<FaultyEndpoint&>(*member.endpoint);
}

constexpr std::size_t payload = 1000;

Write whole_payload(Mesh& mesh) {
  Write write = mesh.write(0, 1);
  write.from = mesh[0].source.get();
  write.bytes = payload;
  return write;
}

// A run must not end up with faults that do nothing of a kind because all seeds have such: each kind is in some
// seeds, and missing in others. What delays is recorded, by SWITCHYARD_TEST_SEED, for tools/stress_faulty.
TEST(FaultsOfSeeds, HaveSomeOfEachKindAndNotAll) {
  constexpr std::uint64_t seeds = 1000;
  std::map<std::string, std::uint64_t> have;
  std::string delaying;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    Faults const faults = transport::faulty::faults_of(static_cast<std::uint64_t>(seed_of_faults(seed)), 0);
    have["delays"] += faults.delayed > 0 && faults.max_delay > 0 ? 1 : 0;
    have["long delays"] += faults.delayed > 0 && faults.max_delay >= 100 ? 1 : 0;
    have["pieces"] += faults.pieces > 1 ? 1 : 0;
    have["parts twice"] += faults.twice > 0 ? 1 : 0;
    have["storms"] += faults.busy > 0 && faults.max_storm > 0 ? 1 : 0;
    have["stalls"] += faults.stalled > 0 && faults.max_stall > 0 ? 1 : 0;
    have["few writes"] += faults.max_writes > 0 ? 1 : 0;
    have["few events"] += faults.max_events > 0 ? 1 : 0;
    if (faults.delayed > 0 && faults.max_delay > 0)
      delaying += text(delaying.empty() ? "" : " ", seed, ":", faults.delayed, ":", faults.max_delay);
  }
  for (auto const& [kind, count] : have) {
    EXPECT_GE(count, seeds / 20) << kind;
    EXPECT_LE(count, seeds - seeds / 20) << kind;
  }
  RecordProperty("delaying", delaying);
}

TEST(FaultyTransport, WithoutFaultsItIsInOrder) {
  Mesh mesh(with({}), 2, payload, 1);
  for (std::uint32_t i = 0; i < 300; ++i) {
    Write write = mesh.write(0, 1);
    write.immediate = i;
    mesh.post(0, write);
    mesh.poll_until([&] { return mesh.num_arrived() == i + 1; }, "a write");
  }
  EXPECT_TRUE(std::ranges::is_sorted(mesh[1].log.arrived));
}

TEST(FaultyTransport, WritesOvertakeOneAnother) {
  Mesh mesh(with({.delayed = 0.5, .max_delay = 100}), 2, payload, 1);
  constexpr std::uint32_t count = 50;
  for (std::uint32_t i = 0; i < count; ++i) {
    Write write = mesh.write(0, 1);
    write.immediate = i;
    write.context = i;
    mesh.post(0, write);
  }
  mesh.settle(count, count);
  EXPECT_FALSE(std::ranges::is_sorted(mesh[1].log.arrived));
  EXPECT_FALSE(std::ranges::is_sorted(mesh[0].log.sent));
}

// While a write is under way, some of its bytes are there and others before them are not.
TEST(FaultyTransport, BytesOfAWriteComeInAnyOrder) {
  bool later_bytes_first = false;
  bool some_bytes_before_arrival = false;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Mesh mesh(with({.delayed = 0.9, .max_delay = 50, .pieces = 8}), 2, payload, seed);
    std::ranges::fill(mesh[0].source_bytes, std::byte{1});
    mesh.post(0, whole_payload(mesh));
    while (mesh.num_arrived() == 0) {
      mesh.poll();
      if (mesh.num_arrived() > 0) break;
      auto const& landed = mesh[1].landing_bytes;
      some_bytes_before_arrival |= std::ranges::count(landed, std::byte{1}) > 0;
      later_bytes_first |= !std::ranges::is_sorted(landed, std::ranges::greater{});
    }
    EXPECT_EQ(std::ranges::count(mesh[1].landing_bytes, std::byte{1}), static_cast<std::ptrdiff_t>(payload));
  }
  EXPECT_TRUE(some_bytes_before_arrival);
  EXPECT_TRUE(later_bytes_first);
}

// Bytes come twice before the arrival, and never after it.
TEST(FaultyTransport, BytesLandTwice) {
  bool twice = false;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Mesh mesh(with({.delayed = 0.9, .max_delay = 50, .pieces = 2, .twice = 1}), 2, payload, seed);
    std::ranges::fill(mesh[0].source_bytes, std::byte{1});
    mesh.post(0, whole_payload(mesh));
    std::byte& first = mesh[1].landing_bytes.front();
    int landed = 0;
    while (mesh.num_arrived() == 0) {
      mesh.poll();
      if (first != std::byte{0}) ++landed;
      first = std::byte{0};
    }
    twice |= landed > 1;
    mesh.settle(1, 1);
    EXPECT_EQ(first, std::byte{0});
  }
  EXPECT_TRUE(twice);
}

TEST(FaultyTransport, StormsOfBusyComeAndPass) {
  Mesh mesh(with({.busy = 0.2, .max_storm = 50}), 2, payload, 1);
  int longest = 0;
  int now = 0;
  for (int posted = 0; posted < 100;) {
    if (mesh[0].endpoint->post(mesh.write(0, 1)) == Endpoint::Posted::yes) {
      now = 0;
      ++posted;
    } else {
      longest = std::max(longest, ++now);
    }
    mesh.poll();
  }
  EXPECT_GT(longest, 10);
  EXPECT_LE(longest, 500);
  mesh.settle(100, 100);
}

TEST(FaultyTransport, QueuesAreSmall) {
  Mesh mesh(with({.max_writes = 3, .max_events = 2}), 2, payload, 1);
  EXPECT_EQ(mesh[0].endpoint->capabilities().max_writes, 3U);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(mesh[0].endpoint->post(mesh.write(0, 1)), Endpoint::Posted::yes);
  EXPECT_EQ(mesh[0].endpoint->post(mesh.write(0, 1)), Endpoint::Posted::busy);
  for (int i = 0; i < 10; ++i) {
    std::vector<Event> events(10);
    EXPECT_LE(mesh[0].endpoint->poll(events), 2U);
    EXPECT_LE(mesh[1].endpoint->poll(events), 2U);
  }
}

// An arrival may be later than many that follow: as late as a signal of an earlier epoch.
TEST(FaultyTransport, SomeArrivalsAreVeryLate) {
  Mesh mesh(with({.delayed = 0.1, .max_delay = 3000}), 2, payload, 1);
  constexpr std::uint32_t count = 200;
  for (std::uint32_t i = 0; i < count; ++i) {
    Write write = mesh.write(0, 1);
    write.immediate = i;
    mesh.post(0, write);
    for (int polls = 0; polls < 10; ++polls) mesh.poll();
  }
  mesh.settle(count, count);
  int latest = 0;  // how many that were posted later arrived before
  auto const& arrived = mesh[1].log.arrived;
  for (auto each = arrived.begin(); each != arrived.end(); ++each)
    latest =
        std::max(latest, static_cast<int>(std::count_if(arrived.begin(), each, [&](auto i) { return i > *each; })));
  EXPECT_GT(latest, 20);
}

TEST(FaultyTransport, ASeedDoesTheSameAgain) {
  auto const order = [](std::uint64_t seed) {
    Mesh mesh(with(transport::faulty::faults_of(3, 0)), 2, payload, seed);
    for (std::uint32_t i = 0; i < 60; ++i) {
      Write write = whole_payload(mesh);
      write.immediate = i;
      mesh.post(0, write);
    }
    mesh.settle(60, 60);
    return mesh[1].log.arrived;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
}

// ---- peers that are lost

constexpr Faults slow{.delayed = 0.9, .max_delay = 100, .pieces = 8};

void poll_for_long(Mesh& mesh) {
  for (int i = 0; i < 5000; ++i) mesh.poll();
}

TEST(FaultyTransport, WritesToASilentPeerAreSentAndNeverArrive) {
  Mesh mesh(with(slow), 2, payload, 1);
  mesh.post(0, whole_payload(mesh));
  for (int i = 0; i < 20; ++i) mesh.poll();
  ASSERT_EQ(mesh.num_arrived(), 0U) << "too early for this test";
  faulty_of(mesh[0]).lose(mesh[0].peers[1], Loss::silent);
  mesh.post(0, whole_payload(mesh));
  poll_for_long(mesh);
  EXPECT_EQ(mesh[0].log.sent.size(), 2U);
  EXPECT_EQ(mesh.num_arrived(), 0U);
  EXPECT_EQ(mesh.num_failed(), 0U);
}

TEST(FaultyTransport, WritesToAStuckPeerTakeRoomForGood) {
  Faults faults = slow;
  faults.max_writes = 4;
  Mesh mesh(with(faults), 3, payload, 1);
  faulty_of(mesh[0]).lose(mesh[0].peers[1], Loss::stuck);
  for (int i = 0; i < 3; ++i) mesh.post(0, whole_payload(mesh));
  for (int i = 0; i < 10; ++i) mesh.post(0, mesh.write(0, 2));  // one after the other still can
  mesh.post(0, whole_payload(mesh));
  poll_for_long(mesh);
  EXPECT_EQ(mesh[0].log.sent.size(), 10U);
  EXPECT_EQ(mesh[0].endpoint->post(mesh.write(0, 2)), Endpoint::Posted::busy);
}

TEST(FaultyTransport, WritesToAFailedPeerFailAndLaterOnesAreRefused) {
  Mesh mesh(with(slow), 3, payload, 1);
  Write write = whole_payload(mesh);
  for (write.context = 0; write.context < 5; ++write.context) mesh.post(0, write);
  for (int i = 0; i < 20; ++i) mesh.poll();
  ASSERT_EQ(mesh.num_arrived(), 0U) << "too early for this test";
  faulty_of(mesh[0]).lose(mesh[0].peers[1], Loss::failed);
  poll_for_long(mesh);
  ASSERT_EQ(mesh[0].log.failed.size() + mesh[0].log.sent.size(), 5U);
  EXPECT_GE(mesh[0].log.failed.size(), 1U);
  for (Event const& event : mesh[0].log.failed) {
    EXPECT_EQ(event.peer, mesh[0].peers[1]);
    EXPECT_LT(event.context, 5U);
  }
  EXPECT_THROW(std::ignore = mesh[0].endpoint->post(write), PeerLost);
  EXPECT_THAT(mesh[0].endpoint->reason(mesh[0].peers[1]), testing::StartsWith("member 1"));
  mesh.post(0, mesh.write(0, 2));
  mesh.poll_until([&] { return mesh[2].log.arrived.size() == 1; }, "a write to another peer");
}

TEST(FaultyTransport, NothingComesFromALostPeer) {
  Mesh mesh(with(slow), 2, payload, 1);
  faulty_of(mesh[1]).lose(mesh[1].peers[0], Loss::silent);
  for (int i = 0; i < 10; ++i) mesh.post(0, whole_payload(mesh));
  poll_for_long(mesh);
  EXPECT_EQ(mesh.num_arrived(), 0U);
}

// As a test of a whole job has it done.
TEST(FaultyTransport, DropsWhomItIsToldAndSaysSo) {
  Mesh mesh(with(slow), 3, payload, 1);
  DropOnPurpose const order({{.endpoint = 0, .peer = 1}});
  poll_for_long(mesh);
  ASSERT_EQ(mesh.num_failed(), 1U);
  EXPECT_EQ(mesh[0].log.failed.front().peer, mesh[0].peers[1]);
  EXPECT_EQ(mesh[0].log.failed.front().context, Event::no_context);
  EXPECT_THROW(std::ignore = mesh[0].endpoint->post(mesh.write(0, 1)), PeerLost);
  mesh.post(0, mesh.write(0, 2));
  mesh.post(2, mesh.write(2, 1));
  mesh.poll_until([&] { return mesh.num_arrived() == 2; }, "writes between others");
  EXPECT_THROW(DropOnPurpose(std::vector<Drop>{}), InvalidArgument) << "another list while this one lives";
}

// ---- what it refuses

TEST(FaultyTransport, RefusesFaultsThatThereAreNot) {
  auto const refused = [](Faults const& faults) {
    EXPECT_THROW(FaultyEndpoint(transport::loopback::make_endpoint({}), faults), InvalidArgument);
  };
  refused({.number = -1});
  refused({.number = 2048});
  refused({.pieces = 0});
  refused({.pieces = 9});
  refused({.delayed = -0.1});
  refused({.busy = 1});
  refused({.stalled = 1});
  refused({.twice = 1.5});
}

TEST(FaultyTransport, RefusesTwoPeersOfOneNumber) {
  FaultyEndpoint one(transport::loopback::make_endpoint({}), {.number = 1});
  FaultyEndpoint also_one(transport::loopback::make_endpoint({}), {.number = 1});
  FaultyEndpoint other(transport::loopback::make_endpoint({}), {.number = 2});
  other.add_peer(one.address(), "one");
  EXPECT_THROW(other.add_peer(also_one.address(), "also one"), InvalidArgument);
}

// A key that claims more than there is gets past post(), and fails where the region is known.
TEST(FaultyTransport, AForgedKeyFails) {
  Mesh mesh(with({}), 2, payload, 1);
  transport::Opaque key = mesh[1].landing->key();
  key.at(sizeof(std::uint64_t) + 1) = std::byte{0xff};  // the size
  Write write = whole_payload(mesh);
  write.into = mesh[0].endpoint->add_region(write.to, key);
  write.into_offset = payload - 1;
  write.context = 5;
  mesh.post(0, write);
  mesh.poll_until([&] { return mesh.num_failed() == 1; }, "a failure");
  EXPECT_EQ(mesh[0].log.failed[0].context, 5U);
}

}  // namespace
}  // namespace switchyard::test
