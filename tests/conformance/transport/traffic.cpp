// Many writes, many peers, slots that are used again and again.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <map>

#include "conformance/transport/suite.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
using transport::Event;
using transport::Write;

TEST_P(TransportSuite, ManyPeers) {
  for_each_seed([](std::uint64_t seed) {
    int const members = std::min(GetParam().most_endpoints, by_scale(8, 20));
    constexpr std::size_t bytes = 97;
    Mesh mesh(GetParam(), members, bytes * static_cast<std::size_t>(members), seed);
    for (int from = 0; from < members; ++from)
      fill_payload(mesh[from].source_bytes, mix(seed, static_cast<std::uint64_t>(from)));
    for (int distance = 1; distance < members; ++distance) {
      for (int from = 0; from < members; ++from) {
        Write write = mesh.write(from, (from + distance) % members);
        write.from = mesh[from].source.get();
        write.bytes = bytes;
        write.into_offset = bytes * static_cast<std::size_t>(from);
        write.immediate = static_cast<std::uint32_t>(from);
        mesh.post(from, write);
      }
    }
    auto const writes = static_cast<std::size_t>(members) * static_cast<std::size_t>(members - 1);
    mesh.settle(writes, writes);
    for (int to = 0; to < members; ++to) {
      for (int from = 0; from < members; ++from) {
        if (from == to) continue;
        EXPECT_EQ(std::ranges::count(mesh[to].log.arrived, static_cast<std::uint32_t>(from)), 1);
        auto const slot = std::span(mesh[to].landing_bytes).subspan(bytes * static_cast<std::size_t>(from), bytes);
        EXPECT_EQ(first_difference(slot, mix(seed, static_cast<std::uint64_t>(from))), bytes)
            << from << " to " << to;
      }
    }
  });
}

// Two members that fill each other's few slots again and again: a slot once its credit has come and its memory at
// the source is free.
class Slots {
 public:
  static constexpr int num = 3;
  static constexpr std::size_t slot_bytes = 1501;
  static constexpr std::uint32_t credit = 1U << 31U;

  Slots(Mesh& mesh, std::uint64_t seed, int writes) : mesh_(mesh), seed_(seed), writes_(writes) {}

  void run() {
    mesh_.poll_until([this] { return step(0), step(1), done(0) && done(1); }, "all slots and credits");
    auto const all = 4 * static_cast<std::size_t>(writes_);  // a credit for each
    mesh_.settle(all, all);
  }

 private:
  struct Side {
    std::array<int, num> prepared{};  // by slot, how often its bytes were written
    std::array<int, num> filled{};    // by slot, how often they were posted
    std::array<int, num> sent{};      // how often its memory has become free
    std::array<int, num> credits{};   // how often it was given back
    std::array<int, num> received{};  // by slot of the peer
    int posted = 0;
    std::size_t arrivals_seen = 0;
    std::size_t sent_seen = 0;
    std::vector<std::uint32_t> owed;  // slots whose credit could not be posted yet
  };
  static constexpr std::uint64_t credit_context = 1000;

  [[nodiscard]] std::uint64_t key(int from, std::size_t slot, int time) const {
    return mix(seed_, from, slot, time);
  }
  Side& side(int member) { return sides_.at(static_cast<std::size_t>(member)); }
  [[nodiscard]] bool done(int member) {
    Side const& mine = side(member);
    int given_back = 0;
    for (int const each : mine.credits) given_back += each;
    return given_back == writes_ && mine.owed.empty();
  }

  void step(int member) {
    take(member);
    std::erase_if(side(member).owed, [&](std::uint32_t slot) {
      Write write = mesh_.write(member, 1 - member);
      write.immediate = credit | slot;
      write.context = credit_context;
      return mesh_[member].endpoint->post(write) == Endpoint::Posted::yes;
    });
    for (std::size_t slot = 0; slot < num; ++slot) fill(member, slot);
  }

  void fill(int member, std::size_t slot) {
    Side& mine = side(member);
    if (mine.posted == writes_ || mine.credits[slot] < mine.filled[slot] || mine.sent[slot] < mine.filled[slot])
      return;
    Write write = mesh_.write(member, 1 - member);
    write.from = mesh_[member].source.get();
    write.from_offset = write.into_offset = slot * slot_bytes;
    write.bytes = slot_bytes;
    write.immediate = static_cast<std::uint32_t>(slot);
    write.context = slot;
    // Once, however often the endpoint is busy.
    if (mine.prepared[slot] == mine.filled[slot]) {
      fill_payload(std::span(mesh_[member].source_bytes).subspan(slot * slot_bytes, slot_bytes),
                   key(member, slot, mine.filled[slot]));
      ++mine.prepared[slot];
    }
    if (mesh_[member].endpoint->post(write) == Endpoint::Posted::busy) return;
    ++mine.filled[slot];
    ++mine.posted;
  }

  void take(int member) {
    Side& mine = side(member);
    Log const& log = mesh_[member].log;
    for (; mine.sent_seen < log.sent.size(); ++mine.sent_seen)
      if (log.sent[mine.sent_seen] != credit_context) ++mine.sent.at(log.sent[mine.sent_seen]);
    for (; mine.arrivals_seen < log.arrived.size(); ++mine.arrivals_seen) {
      std::uint32_t const immediate = log.arrived[mine.arrivals_seen];
      std::size_t const slot = immediate & ~credit;
      if ((immediate & credit) != 0) {
        ++mine.credits.at(slot);
        continue;
      }
      auto const bytes = std::span(mesh_[member].landing_bytes).subspan(slot * slot_bytes, slot_bytes);
      EXPECT_EQ(first_difference(bytes, key(1 - member, slot, mine.received.at(slot))), slot_bytes)
          << "slot " << slot;
      ++mine.received[slot];
      std::ranges::fill(bytes, std::byte{0});
      mine.owed.push_back(immediate);
    }
  }

  Mesh& mesh_;
  std::uint64_t seed_;
  int writes_;
  std::array<Side, 2> sides_;
};

TEST_P(TransportSuite, ManyWritesIntoFewSlots) {
  for_each_seed([](std::uint64_t seed) {
    Mesh mesh(GetParam(), 2, Slots::num * Slots::slot_bytes, seed);
    Slots(mesh, seed, by_scale(20, 60)).run();
  });
}

// Most go to one member; most are small; nobody polls regularly, nor always with the same room for events.
TEST_P(TransportSuite, RandomTraffic) {
  for_each_seed([](std::uint64_t seed) {
    constexpr int members = 4;
    constexpr std::size_t room = 1 << 20;
    Mesh mesh(GetParam(), members, room, seed);
    Random random(seed);
    std::array<std::size_t, members> ends{};  // each write has a place of its own
    std::array<std::map<std::uint32_t, Write>, members> expected;
    for (int from = 0; from < members; ++from)
      fill_payload(mesh[from].source_bytes, mix(seed, static_cast<std::uint64_t>(from)));

    std::size_t const count = static_cast<std::size_t>(by_scale(100, 400));
    for (std::size_t i = 0; i < count; ++i) {
      int const from = static_cast<int>(random.below(members));
      int const to = from != 0 && random.chance(75) ? 0 : (from + random.between(1, members - 1)) % members;
      std::size_t& end = ends.at(static_cast<std::size_t>(to));
      Write write = mesh.write(from, to);
      write.bytes = random.chance(80) ? random.bits() % 100 : random.bits() % 6000;
      write.from = mesh[from].source.get();
      write.from_offset = random.bits() % (room - write.bytes);
      write.into_offset = end;
      write.immediate = static_cast<std::uint32_t>(from) << 30U | static_cast<std::uint32_t>(i);
      write.context = i;
      end += write.bytes;
      ASSERT_LE(end, room);
      expected.at(static_cast<std::size_t>(to))[write.immediate] = write;
      mesh.post(from, write);
      while (random.chance(50)) {
        Member& member = mesh[static_cast<int>(random.below(members))];
        std::vector<Event> events(static_cast<std::size_t>(random.below(5)));
        std::size_t const filled = member.endpoint->poll(events);
        for (std::size_t each = 0; each < filled; ++each) member.log.take(events[each]);
      }
    }
    mesh.settle(count, count);
    for (int to = 0; to < members; ++to) {
      EXPECT_EQ(mesh[to].log.arrived.size(), expected.at(static_cast<std::size_t>(to)).size());
      for (std::uint32_t const immediate : mesh[to].log.arrived) {
        auto const found = expected.at(static_cast<std::size_t>(to)).find(immediate);
        ASSERT_NE(found, expected.at(static_cast<std::size_t>(to)).end());
        Write const& write = found->second;
        auto const landed = std::span(mesh[to].landing_bytes).subspan(write.into_offset, write.bytes);
        auto const sent = std::span(mesh[static_cast<int>(immediate >> 30U)].source_bytes)
                              .subspan(write.from_offset, write.bytes);
        EXPECT_TRUE(std::ranges::equal(landed, sent)) << "write " << write.context;
      }
    }
  });
}

}  // namespace
}  // namespace switchyard::test
