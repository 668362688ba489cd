// What a write brings: its bytes, once, with its number.
#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "conformance/transport/suite.hpp"
#include "support/random.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
using transport::Write;

constexpr std::size_t memory_bytes = 256 * 1024;

struct Sent {
  std::size_t into_offset = 0;
  std::size_t bytes = 0;
  std::size_t from_offset = 0;
};

TEST_P(TransportSuite, EveryByteArrives) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, memory_bytes, seed);
    Random random(seed);
    fill_payload(mesh[0].source_bytes, seed);
    fill_payload(mesh[1].landing_bytes, seed + 1);
    std::vector<std::byte> expected = mesh[1].landing_bytes;

    std::vector<Sent> writes;
    std::size_t end = 0;
    for (std::size_t const bytes : {1, 2, 3, 7, 8, 9, 63, 64, 65, 511, 1000, 4095, 4096, 4097, 20001, 70001}) {
      std::size_t const into = end + 1 + static_cast<std::size_t>(random.below(9));
      auto const from = static_cast<std::size_t>(random.below(static_cast<std::int64_t>(memory_bytes - bytes)));
      writes.push_back({into, bytes, from});
      std::copy_n(mesh[0].source_bytes.begin() + static_cast<std::ptrdiff_t>(from), bytes,
                  expected.begin() + static_cast<std::ptrdiff_t>(into));
      end = into + bytes;
    }
    std::size_t checked = 0;
    auto const check_arrived = [&] {
      for (; checked < mesh[1].log.arrived.size(); ++checked) {
        Sent const& sent = writes.at(mesh[1].log.arrived[checked]);
        auto const at = static_cast<std::ptrdiff_t>(sent.into_offset);
        EXPECT_TRUE(std::equal(expected.begin() + at,
                               expected.begin() + at + static_cast<std::ptrdiff_t>(sent.bytes),
                               mesh[1].landing_bytes.begin() + at))
            << "a write of " << sent.bytes << " bytes arrived without all of them";
      }
    };
    for (std::size_t i = 0; i < writes.size(); ++i) {
      Write write = mesh.write(0, 1);
      write.from = mesh[0].source.get();
      write.from_offset = writes[i].from_offset;
      write.into_offset = writes[i].into_offset;
      write.bytes = writes[i].bytes;
      write.immediate = static_cast<std::uint32_t>(i);
      mesh.post(0, write);
      check_arrived();
    }
    mesh.poll_until([&] { return check_arrived(), checked == writes.size(); }, "all writes");
    mesh.settle(writes.size(), writes.size());
    EXPECT_TRUE(mesh[1].landing_bytes == expected) << "bytes that no write was for have changed";
  });
}

TEST_P(TransportSuite, WritesWithoutBytesBringTheirImmediate) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, 1000, seed);
    fill_payload(mesh[1].landing_bytes, seed);
    std::vector<std::uint32_t> const immediates{0, 1, 0x80000000, 0xffffffff, 0x12345678};
    for (std::uint32_t const immediate : immediates) {
      Write write = mesh.write(0, 1);
      write.immediate = immediate;
      write.into_offset = immediate % 2 == 0 ? 0 : mesh[1].landing_bytes.size();
      if (immediate > 1) write.from = mesh[0].source.get();
      mesh.post(0, write);
    }
    mesh.settle(immediates.size(), immediates.size());
    EXPECT_THAT(mesh[1].log.arrived, testing::UnorderedElementsAreArray(immediates));
    EXPECT_EQ(first_difference(mesh[1].landing_bytes, seed), 1000U);
  });
}

TEST_P(TransportSuite, EachWriteArrivesAndIsSentOnce) {
  for_each_seed([](std::uint64_t seed) {
    constexpr std::size_t count = 200;
    Mesh mesh(GetParam(), 2, 64 * count, seed);
    Random random(seed);
    std::set<std::uint32_t> immediates;
    std::set<std::uint64_t> contexts{0, transport::Event::no_context - 1};
    while (immediates.size() < count) immediates.insert(static_cast<std::uint32_t>(random.bits()));
    while (contexts.size() < count) contexts.insert(random.bits());
    auto context = contexts.begin();
    for (std::uint32_t const immediate : immediates) {
      Write write = mesh.write(0, 1);
      write.immediate = immediate;
      write.context = *context++;
      write.from = mesh[0].source.get();
      write.bytes = static_cast<std::size_t>(random.below(64));
      mesh.post(0, write);
    }
    mesh.settle(count, count);
    EXPECT_THAT(mesh[1].log.arrived, testing::UnorderedElementsAreArray(immediates));
    EXPECT_THAT(mesh[0].log.sent, testing::UnorderedElementsAreArray(contexts));
  });
}

// `sent` alone makes the memory free, whether the write has arrived or not.
TEST_P(TransportSuite, MemoryMayBeUsedAgainOnceItIsSent) {
  for_each_seed([](std::uint64_t seed) {
    constexpr std::size_t count = 40;
    constexpr std::size_t bytes = 333;
    Mesh mesh(GetParam(), 2, count * bytes, seed);
    Random random(seed);
    auto const source = std::span(mesh[0].source_bytes).first(bytes);
    auto const poll = [&mesh](int member) {
      transport::poll_once(*mesh[member].endpoint, [&](transport::Event const& e) { mesh[member].log.take(e); });
    };
    for (std::size_t i = 0; i < count; ++i) {
      fill_payload(source, mix(seed, i));
      Write write = mesh.write(0, 1);
      write.from = mesh[0].source.get();
      write.into_offset = i * bytes;
      write.bytes = bytes;
      mesh.post(0, write);
      Deadline const deadline(Mesh::patience("").deadline);
      while (mesh[0].log.sent.size() <= i) {
        ASSERT_FALSE(deadline.expired()) << "write " << i << " of " << count;
        poll(random.chance(80) ? 0 : 1);
      }
    }
    std::ranges::fill(source, std::byte{0});
    mesh.settle(count, count);
    for (std::size_t i = 0; i < count; ++i)
      EXPECT_EQ(first_difference(std::span(mesh[1].landing_bytes).subspan(i * bytes, bytes), mix(seed, i)), bytes);
  });
}

TEST_P(TransportSuite, AnEndpointTakesNoMoreThanItSays) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, 1000, seed);
    std::size_t const most = mesh[0].endpoint->capabilities().max_writes;
    ASSERT_GE(most, 1U);
    std::size_t posted = 0;
    for (std::size_t attempt = 0; attempt < 10 * most + 1000; ++attempt)
      posted += mesh[0].endpoint->post(mesh.write(0, 1)) == Endpoint::Posted::yes ? 1U : 0U;
    EXPECT_LE(posted, most);
    mesh.settle(posted, posted);
    // What was refused left nothing behind, and there is room again for as much.
    for (std::size_t i = 0; i < 2 * most; ++i) mesh.post(0, mesh.write(0, 1));
    mesh.settle(posted + 2 * most, posted + 2 * most);
  });
}

// A poll reports no more events than it was given room for, and loses none.
TEST_P(TransportSuite, EventsWaitForRoom) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, 1000, seed);
    std::size_t const count = 3 * std::min<std::size_t>(mesh[0].endpoint->capabilities().max_writes, 16);
    std::size_t posted = 0;
    std::size_t seen = 0;
    Deadline const deadline(Mesh::patience("").deadline);
    while (seen < 2 * count) {
      ASSERT_FALSE(deadline.expired()) << seen << " events of " << 2 * count;
      if (posted < count && mesh[0].endpoint->post(mesh.write(0, 1)) == Endpoint::Posted::yes) ++posted;
      for (int const member : {0, 1}) {
        EXPECT_EQ(mesh[member].endpoint->poll({}), 0U);
        transport::Event event;
        std::size_t const filled = mesh[member].endpoint->poll(std::span(&event, 1));
        ASSERT_LE(filled, 1U);
        seen += filled;
      }
    }
    mesh.settle(0, 0);
  });
}

}  // namespace
}  // namespace switchyard::test
