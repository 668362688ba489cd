// Where endpoints listen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fabric/ends.hpp"
#include "support/check.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

void send_one(Pair& pair) {
  pair.a.memory.assign(pair.a.memory.size(), std::byte{42});
  for (End* from : pair.both) {
    post(*from, {from->peer, from->region.get(), 0, from->target, 0, 100, 3, 4}, pair.both);
    ASSERT_TRUE(poll_until(pair.both, [&] { return from->sent[4] == 1; }));
  }
  ASSERT_TRUE(poll_until(pair.both, [&] { return pair.a.arrived[3] == 1 && pair.b.arrived[3] == 1; }));
  EXPECT_EQ(pair.b.memory[99], std::byte{42});
}

TEST(FabricAddresses, IPv6) {
  Pair pair(at("::1"), at("::1"), 100);
  send_one(pair);
}

TEST(FabricAddresses, TwoOfOneNode) {
  Pair pair(at("127.0.0.1"), at("127.0.0.2"), 100);
  EXPECT_NE(pair.a.endpoint->address(), pair.b.endpoint->address());
  send_one(pair);
}

TEST(FabricAddresses, OfDifferentFamiliesDoNotMeet) {
  End four(at("127.0.0.1"), 100);
  End six(at("::1"), 100);
  EXPECT_THROW((void)four.endpoint->add_peer(six.endpoint->address(), "six"), InvalidArgument);
  EXPECT_THROW((void)six.endpoint->add_peer(four.endpoint->address(), "four"), InvalidArgument);
}

TEST(FabricAddresses, OneThatIsNotOursIsRefused) {
  EXPECT_THROW((void)transport::libfabric::open_endpoint(at("192.0.2.77.1")), InvalidArgument);
  EXPECT_THROW((void)transport::libfabric::open_endpoint(at("no address")), InvalidArgument);
  // One that is well formed, of nobody here (RFC 5737 keeps it for documents).
  auto const error =
      expect_throw_any("a foreign address", [] { (void)transport::libfabric::open_endpoint(at("203.0.113.9")); });
  EXPECT_THAT(error.what(), testing::HasSubstr("203.0.113.9"));
}

}  // namespace
}  // namespace switchyard::test
