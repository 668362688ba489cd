// What only the loopback promises: when bytes move, and what happens when an end goes.
#include "transport/loopback/loopback.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <thread>

#include "conformance/transport/suite.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
using transport::Opaque;
using transport::Write;
namespace loopback = transport::loopback;

constexpr std::size_t bytes_of_region = 500;

std::vector<std::unique_ptr<Endpoint>> loopback_endpoints(int count, std::uint64_t /*seed*/) {
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (int i = 0; i < count; ++i) endpoints.push_back(loopback::make_endpoint({.max_writes = 4}));
  return endpoints;
}

class Loopback : public testing::Test {
 protected:
  Write whole() {
    Write write = mesh_.write(0, 1);
    write.from = mesh_[0].source.get();
    write.bytes = bytes_of_region;
    return write;
  }
  void close(int member) {
    mesh_[member].source.reset();
    mesh_[member].landing.reset();
    mesh_[member].endpoint.reset();
  }
  // Polls member 0 alone.
  void poll_source() {
    transport::poll_once(*mesh_[0].endpoint, [this](transport::Event const& event) { mesh_[0].log.take(event); });
  }

  Mesh mesh_{{.name = "loopback", .make = loopback_endpoints}, 3, bytes_of_region, 1};
};

TEST_F(Loopback, BytesMoveWhenTheTargetPolls) {
  fill_payload(mesh_[0].source_bytes, 1);
  mesh_.post(0, whole());
  fill_payload(mesh_[0].source_bytes, 2);  // which nobody may do before `sent`
  for (int i = 0; i < 100; ++i) poll_source();
  EXPECT_EQ(mesh_.num_sent(), 0U);
  EXPECT_EQ(mesh_[1].landing_bytes.front(), std::byte{0});
  mesh_.settle(1, 1);
  EXPECT_EQ(first_difference(mesh_[1].landing_bytes, 2), bytes_of_region);
}

TEST_F(Loopback, TakesExactlyAsManyWritesAsItSays) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(mesh_[0].endpoint->post(whole()), Endpoint::Posted::yes);
  EXPECT_EQ(mesh_[0].endpoint->post(whole()), Endpoint::Posted::busy);
  EXPECT_EQ(mesh_[0].endpoint->post(mesh_.write(0, 2)), Endpoint::Posted::busy);
  mesh_.settle(4, 4);
}

TEST_F(Loopback, APeerMayBeItself) {
  auto const self = mesh_[0].endpoint->add_peer(mesh_[0].endpoint->address(), "itself");
  Write write = whole();
  fill_payload(mesh_[0].source_bytes, 3);
  write.to = self;
  write.into = mesh_[0].endpoint->add_region(self, mesh_[0].landing->key());
  mesh_.post(0, write);
  mesh_.settle(1, 1);
  EXPECT_EQ(first_difference(mesh_[0].landing_bytes, 3), bytes_of_region);
}

TEST_F(Loopback, WritesToAnEndpointThatGoesFail) {
  Write write = whole();
  write.context = 9;
  mesh_.post(0, write);
  close(1);
  poll_source();
  ASSERT_EQ(mesh_.num_failed(), 1U);
  EXPECT_EQ(mesh_[0].log.failed[0].context, 9U);
  EXPECT_EQ(mesh_[0].log.failed[0].peer, write.to);
  EXPECT_THROW(std::ignore = mesh_[0].endpoint->post(write), PeerLost);
  EXPECT_EQ(mesh_[0].endpoint->reason(write.to), "member 1: its endpoint has gone");
}

TEST_F(Loopback, WritesOfAnEndpointThatGoesVanish) {
  mesh_.post(0, whole());
  close(0);
  std::array<transport::Event, 4> events;
  EXPECT_EQ(mesh_[1].endpoint->poll(events), 0U);
}

TEST_F(Loopback, WritesFailWhoseRegionsHaveGone) {
  mesh_.post(0, whole());
  mesh_[1].landing.reset();
  mesh_.poll_until([this] { return mesh_.num_failed() == 1; }, "a failure");
  Write write = mesh_.write(0, 2);
  write.from = mesh_[0].source.get();
  write.bytes = 1;
  mesh_.post(0, write);
  mesh_[0].source.reset();
  mesh_.poll_until([this] { return mesh_.num_failed() == 2; }, "a failure");
  EXPECT_EQ(mesh_.num_arrived(), 0U);
  EXPECT_THAT(mesh_[0].endpoint->reason(write.to), testing::HasSubstr("started from"));
}

// A rank that throws takes its memory with it, whoever may be reading it just now.
TEST_F(Loopback, EndpointsGoWhilePeersReadTheirMemory) {
  constexpr std::size_t bytes = 100000;
  for (int round = 0; round < by_scale(20, 200); ++round) {
    Mesh mesh({.name = "loopback", .make = loopback_endpoints}, 2, bytes, 1);
    Write write = mesh.write(0, 1);
    write.from = mesh[0].source.get();
    write.bytes = bytes;
    for (int i = 0; i < 3; ++i) mesh.post(0, write);
    std::thread poller([&] {
      for (int i = 0; i < 50; ++i) transport::poll_once(*mesh[1].endpoint, [](transport::Event const&) {});
    });
    mesh[0].source.reset();
    std::ranges::fill(mesh[0].source_bytes, std::byte{1});
    mesh[0].landing.reset();
    mesh[0].endpoint.reset();
    poller.join();
  }
}

TEST_F(Loopback, RefusesWhatItDidNotMake) {
  Endpoint& endpoint = *mesh_[0].endpoint;
  Opaque const address = mesh_[1].endpoint->address();
  Opaque const key = mesh_[1].landing->key();
  for (std::size_t i = 0; i < address.size(); ++i) {
    Opaque changed = address;
    changed[i] ^= std::byte{0x80};
    EXPECT_THROW(endpoint.add_peer(changed, "a stranger"), InvalidArgument) << "byte " << i;
  }
  for (std::size_t i = 0; i < key.size(); ++i) {
    Opaque changed = key;
    changed[i] ^= std::byte{0x80};
    EXPECT_THROW(endpoint.add_region(mesh_[0].peers[1], changed), InvalidArgument) << "byte " << i;
  }
  EXPECT_THROW(endpoint.add_region(mesh_[0].peers[2], key), InvalidArgument) << "the key of another peer";
  close(1);
  EXPECT_THROW(endpoint.add_region(mesh_[0].peers[1], key), InvalidArgument);
  auto const stranger = loopback::make_endpoint({});
  Opaque const gone = loopback::make_endpoint({})->address();
  EXPECT_THROW(stranger->add_peer(gone, "gone"), InvalidArgument);
}

TEST_F(Loopback, RefusesMoreThanItsLimits) {
  std::vector<std::byte> memory(100);
  auto const endpoint = loopback::make_endpoint({.max_write_bytes = 10, .region_bytes_limit = 50});
  EXPECT_THROW(endpoint->register_memory(memory), SystemError);
  auto const region = endpoint->register_memory(std::span(memory).first(50));
  auto const self = endpoint->add_peer(endpoint->address(), "itself");
  Write write{.to = self, .from = region.get(), .into = endpoint->add_region(self, region->key()), .bytes = 11};
  EXPECT_THROW(std::ignore = endpoint->post(write), InvalidArgument);
  write.bytes = 10;
  EXPECT_EQ(endpoint->post(write), Endpoint::Posted::yes);
  EXPECT_THROW(loopback::make_endpoint({.max_writes = 0}), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
