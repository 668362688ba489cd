// What a back end is given from outside, and what its caller gets wrong, is refused, and harms nothing.
#include "conformance/transport/suite.hpp"
#include "support/random.hpp"

namespace switchyard::test {
namespace {

using transport::Opaque;
using transport::Peer;
using transport::PeerRegion;
using transport::Write;

constexpr std::size_t region_bytes = 1000;
constexpr std::size_t enormous = ~std::size_t{0};

// Everything still works.
void expect_usable(Mesh& mesh) {
  fill_payload(mesh[0].source_bytes, 7);
  Write write = mesh.write(0, 1);
  write.from = mesh[0].source.get();
  write.bytes = region_bytes;
  std::size_t const sent = mesh.num_sent();
  std::size_t const arrived = mesh.num_arrived();
  mesh.post(0, write);
  mesh.settle(sent + 1, arrived + 1);
  EXPECT_EQ(first_difference(mesh[1].landing_bytes, 7), region_bytes);
}

TEST_P(TransportSuite, RefusesWritesBeyondRegions) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, region_bytes, seed);
    struct Range {
      std::size_t from = 0;
      std::size_t into = 0;
      std::size_t bytes = 0;
    };
    for (Range const& range : std::initializer_list<Range>{{0, 0, region_bytes + 1},
                                                           {1, 0, region_bytes},
                                                           {0, 1, region_bytes},
                                                           {region_bytes, 0, 1},
                                                           {0, region_bytes, 1},
                                                           {region_bytes + 1, 0, 0},
                                                           {0, region_bytes + 1, 0},
                                                           {enormous, 0, 2},
                                                           {0, enormous, 2},
                                                           {0, enormous - 1, 3},
                                                           {0, 0, enormous},
                                                           {1, 1, enormous}}) {
      Write write = mesh.write(0, 1);
      write.from = mesh[0].source.get();
      write.from_offset = range.from;
      write.into_offset = range.into;
      write.bytes = range.bytes;
      EXPECT_THROW(std::ignore = mesh[0].endpoint->post(write), InvalidArgument)
          << range.from << " " << range.into << " " << range.bytes;
    }
    Write without_region = mesh.write(0, 1);
    without_region.bytes = 1;
    EXPECT_THROW(std::ignore = mesh[0].endpoint->post(without_region), InvalidArgument);
    Write without_context = mesh.write(0, 1);
    without_context.context = transport::Event::no_context;
    EXPECT_THROW(std::ignore = mesh[0].endpoint->post(without_context), InvalidArgument);
    expect_usable(mesh);
  });
}

TEST_P(TransportSuite, RefusesPeersAndRegionsThatThereAreNot) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 3, region_bytes, seed);
    auto const refused = [&](auto const& change) {
      Write write = mesh.write(0, 1);
      change(write);
      EXPECT_THROW(std::ignore = mesh[0].endpoint->post(write), InvalidArgument);
    };
    refused([](Write& write) { write.to = Peer{-1}; });
    refused([](Write& write) { write.to = Peer{2}; });
    refused([](Write& write) { write.to = Peer{1 << 30}; });
    refused([](Write& write) { write.into = PeerRegion{-1}; });
    refused([](Write& write) { write.into = PeerRegion{2}; });
    refused([&](Write& write) { write.into = mesh.write(0, 2).into; });
    refused([&](Write& write) { write.from = mesh[1].source.get(); });
    EXPECT_THROW(mesh[0].endpoint->add_region(Peer{2}, mesh[1].landing->key()), InvalidArgument);
    EXPECT_THROW(mesh[0].endpoint->add_region(Peer{-1}, mesh[1].landing->key()), InvalidArgument);
    EXPECT_THROW(std::ignore = mesh[0].endpoint->reason(Peer{2}), InvalidArgument);
    expect_usable(mesh);
  });
}

TEST_P(TransportSuite, RefusesMalformedAddressesAndKeys) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, region_bytes, seed);
    Random random(seed);
    transport::Endpoint& endpoint = *mesh[0].endpoint;
    auto const refused = [&](Opaque const& bytes, char const* what) {
      EXPECT_THROW(endpoint.add_peer(bytes, "a stranger"), InvalidArgument)
          << what << ", " << bytes.size() << " bytes";
      EXPECT_THROW(endpoint.add_region(mesh[0].peers[1], bytes), InvalidArgument)
          << what << ", " << bytes.size() << " bytes";
    };
    Opaque const address = mesh[1].endpoint->address();
    Opaque const key = mesh[1].landing->key();
    for (Opaque const& whole : {address, key}) {
      for (std::size_t bytes = 0; bytes < whole.size(); ++bytes)
        refused(Opaque(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)), "cut");
      Opaque longer = whole;
      longer.push_back(std::byte{0});
      refused(longer, "too long");
    }
    for (int i = 0; i < 200; ++i) {
      std::size_t const bytes = i % 3 == 0 ? address.size() : i % 3 == 1 ? key.size() : random.bits() % 300;
      Opaque noise(bytes);
      for (std::byte& byte : noise) byte = static_cast<std::byte>(random.bits());
      refused(noise, "random");
    }
    EXPECT_THROW(endpoint.add_peer(key, "a stranger"), InvalidArgument);
    EXPECT_THROW(endpoint.add_region(mesh[0].peers[1], address), InvalidArgument);
    expect_usable(mesh);
  });
}

}  // namespace
}  // namespace switchyard::test
