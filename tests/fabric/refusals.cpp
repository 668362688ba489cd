// What comes from outside, or from a caller who is wrong.
#include <gtest/gtest.h>

#include <cstring>

#include "fabric/ends.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using transport::Opaque;

Wish loopback() {
  return {{}, {}, "127.0.0.1", Counting::automatic};
}

Opaque cut(Opaque const& whole, std::size_t bytes) {
  return {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)};
}

TEST(FabricRefusals, AddressesThatAreCutOrLonger) {
  Pair pair(loopback(), 100);
  Opaque whole = pair.b.endpoint->address();
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_THROW((void)pair.a.endpoint->add_peer(cut(whole, bytes), "b"), InvalidArgument) << bytes << " bytes";
  }
  whole.push_back(std::byte{0});
  EXPECT_THROW((void)pair.a.endpoint->add_peer(whole, "b"), InvalidArgument);
}

TEST(FabricRefusals, KeysThatAreCutOrLonger) {
  Pair pair(loopback(), 100);
  Opaque whole = pair.b.region->key();
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_THROW((void)pair.a.endpoint->add_region(pair.a.peer, cut(whole, bytes)), InvalidArgument) << bytes;
  }
  whole.push_back(std::byte{0});
  EXPECT_THROW((void)pair.a.endpoint->add_region(pair.a.peer, whole), InvalidArgument);
  EXPECT_THROW((void)pair.a.endpoint->add_region(pair.a.peer, pair.b.endpoint->address()), InvalidArgument);
  EXPECT_THROW((void)pair.a.endpoint->add_peer(pair.b.region->key(), "b"), InvalidArgument);
}

// Most are refused; one that is taken may lead nowhere, but harms nobody.
TEST(FabricRefusals, BitsThatFlip) {
  Pair pair(loopback(), 100);
  Opaque const address = pair.b.endpoint->address();
  Opaque const key = pair.b.region->key();
  for (std::size_t bit = 0; bit < 8 * std::max(address.size(), key.size()); ++bit) {
    for (Opaque changed : {address, key}) {
      if (bit / 8 >= changed.size()) continue;
      changed[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      try {
        if (changed.size() == address.size()) (void)pair.a.endpoint->add_peer(changed, "b");
        if (changed.size() == key.size()) (void)pair.a.endpoint->add_region(pair.a.peer, changed);
      } catch (InvalidArgument const&) {
        continue;
      }
    }
  }
  post(pair.a, {pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 100, 3, 4}, pair.both);
  EXPECT_TRUE(poll_until(pair.both, [&] { return pair.b.arrived[3] == 1; }));
}

TEST(FabricRefusals, BytesByChance) {
  Pair pair(loopback(), 100);
  Random random(11);
  for (int i = 0; i < 2000; ++i) {
    Opaque bytes(static_cast<std::size_t>(random.below(200)));
    fill(bytes, random);
    EXPECT_THROW((void)pair.a.endpoint->add_peer(bytes, "b"), InvalidArgument);
    EXPECT_THROW((void)pair.a.endpoint->add_region(pair.a.peer, bytes), InvalidArgument);
  }
}

TEST(FabricRefusals, APeerThatCountsOtherwise) {
  Wish messages = loopback();
  messages.counting = Counting::messages;
  End one(EndpointOptions{loopback()}, 100);
  End other(EndpointOptions{messages}, 100);
  EXPECT_THROW((void)one.endpoint->add_peer(other.endpoint->address(), "other"), InvalidArgument);
}

TEST(FabricRefusals, WritesOutsideOfTheirRegions) {
  Pair pair(loopback(), 100);
  Pair others(loopback(), 100);
  Write const good{pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 100, 0, 0};
  std::vector<Write> bad(11, good);
  bad[0].from_offset = 1;
  bad[1].into_offset = 1;
  bad[2].bytes = 101;
  bad[3].from_offset = ~std::size_t{0};
  bad[4].into_offset = ~std::size_t{0} - 50;
  bad[5].from = nullptr;
  bad[6].from = others.a.region.get();
  bad[7].to = Peer{1};
  bad[8].to = Peer{-1};
  bad[9].into = PeerRegion{1};
  bad[10].into = PeerRegion{-1};
  for (std::size_t i = 0; i < bad.size(); ++i) {
    EXPECT_THROW((void)pair.a.endpoint->post(bad[i]), InvalidArgument) << "write " << i;
  }
  // A region of one peer is none of another's.
  Peer const another = pair.a.endpoint->add_peer(others.b.endpoint->address(), "another");
  Write foreign = good;
  foreign.to = another;
  EXPECT_THROW((void)pair.a.endpoint->post(foreign), InvalidArgument);
  EXPECT_THROW((void)pair.a.endpoint->register_memory({}), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
