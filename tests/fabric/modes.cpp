// Providers differ in what they demand of registered memory. Those for TCP take any of it, so that each demand can
// be tried here: addresses instead of offsets, keys of the provider's, registration of what is only read from.
#include <gtest/gtest.h>

#include <algorithm>

#include "fabric/ends.hpp"
#include "transport/libfabric/endpoint.hpp"

namespace switchyard::test {
namespace {

using namespace transport::libfabric;

constexpr std::size_t memory_bytes = 50000;
constexpr std::size_t piece_bytes = 7000;

struct Demand {
  char const* name;
  int modes;
};

void PrintTo(Demand const& demand, std::ostream* out) {
  *out << demand.name;
}

class FabricModes : public testing::TestWithParam<std::tuple<Demand, Counting>> {
 protected:
  std::unique_ptr<Endpoint> open() {
    Offers const offers = find_offers(library(), {{}, {}, "127.0.0.1", std::get<1>(GetParam())});
    Candidate candidate = *offers.chosen().front();
    InfoPtr const info = library().info(candidate.info);
    info->domain_attr->mr_mode = std::get<0>(GetParam()).modes;
    candidate.info = info.get();
    std::size_t const receives = candidate.nic.counts_remotely ? 0 : 64;
    return std::make_unique<FabricEndpoint>(library(), candidate, Limits{64, 64, receives, piece_bytes});
  }
};

// One after the other, so that a key or an address that is wrong cannot be hidden by the next write.
TEST_P(FabricModes, EveryByteArrives) {
  std::vector<std::byte> source(memory_bytes);
  std::vector<std::byte> landing(memory_bytes);
  auto const from = open();
  auto const to = open();
  auto const read = from->register_memory(source);
  auto const written = to->register_memory(landing);
  Peer const peer = from->add_peer(to->address(), "to");
  (void)to->add_peer(from->address(), "from");
  PeerRegion const target = from->add_region(peer, written->key());
  Random random(17);
  fill(source, random);
  auto const end = std::chrono::steady_clock::now() + patience;
  for (std::uint32_t i = 0; i < 100; ++i) {
    auto const length = static_cast<std::size_t>(random.below(memory_bytes / 2));
    auto const offset = static_cast<std::size_t>(random.below(memory_bytes / 2));
    auto const into = static_cast<std::size_t>(random.below(memory_bytes / 2));
    Write const write{peer, length > 0 ? read.get() : nullptr, offset, target, into, length, i, i};
    bool posted = false;
    bool sent = false;
    bool arrived = false;
    while (!sent || !arrived) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "write " << i;
      posted = posted || from->post(write) == Endpoint::Posted::yes;
      std::array<Event, 4> events;
      std::size_t count = from->poll(events);
      for (std::size_t e = 0; e < count; ++e) sent = sent || events[e].kind == Event::Kind::sent;
      count = to->poll(events);
      for (std::size_t e = 0; e < count; ++e) arrived = arrived || events[e].immediate == i;
    }
    auto const first = source.begin() + static_cast<std::ptrdiff_t>(offset);
    EXPECT_TRUE(std::equal(first, first + static_cast<std::ptrdiff_t>(length),
                           landing.begin() + static_cast<std::ptrdiff_t>(into)))
        << "write " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Demands, FabricModes,
    testing::Combine(testing::Values(Demand{"nothing", 0}, Demand{"addresses", FI_MR_VIRT_ADDR},
                                     Demand{"keys_of_the_provider", FI_MR_PROV_KEY}, Demand{"local", FI_MR_LOCAL},
                                     Demand{"as_verbs",
                                            FI_MR_VIRT_ADDR | FI_MR_PROV_KEY | FI_MR_LOCAL | FI_MR_ALLOCATED}),
                     testing::Values(Counting::remote, Counting::messages)),
    [](auto const& param) {
      return std::string(std::get<0>(param.param).name) +
             (std::get<1>(param.param) == Counting::remote ? "_remote" : "_messages");
    });

}  // namespace
}  // namespace switchyard::test
