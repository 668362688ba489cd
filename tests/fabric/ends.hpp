// Endpoints of one process that know one another, and what happens at them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "fabric/ways.hpp"
#include "support/random.hpp"
#include "transport/libfabric/libfabric.hpp"

namespace switchyard::test {

using transport::Endpoint;
using transport::Event;
using transport::Peer;
using transport::PeerRegion;
using transport::Region;
using transport::Write;

inline constexpr std::chrono::seconds patience{20};

// One endpoint with memory of its own, which its peers write to and which its writes start from.
struct End {
  explicit End(EndpointOptions const& options, std::size_t bytes)
      : memory(bytes), endpoint(transport::libfabric::open_endpoint(options)) {
    region = endpoint->register_memory(memory);
  }

  // Returns the events that came, and keeps count of them.
  std::vector<Event> poll() {
    std::array<Event, 16> room;
    std::size_t const count = endpoint->poll(room);
    for (std::size_t i = 0; i < count; ++i) {
      if (room[i].kind == Event::Kind::sent) ++sent[room[i].context];
      if (room[i].kind == Event::Kind::arrived) ++arrived[room[i].immediate];
      if (room[i].kind == Event::Kind::failed) ++failed;
    }
    return {room.begin(), room.begin() + static_cast<std::ptrdiff_t>(count)};
  }

  std::vector<std::byte> memory;
  std::unique_ptr<Endpoint> endpoint;  // outlives its region
  std::unique_ptr<Region> region;
  Peer peer{};
  PeerRegion target{};
  std::map<std::uint64_t, int> sent;
  std::map<std::uint32_t, int> arrived;
  int failed = 0;
};

// Polls all until the condition holds; false after the deadline.
inline bool poll_until(std::vector<End*> const& ends, std::function<bool()> const& holds) {
  auto const end = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    for (End* one : ends) one->poll();
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

// Posts, polling all meanwhile.
inline void post(End& from, Write const& write, std::vector<End*> const& ends) {
  bool posted = false;
  ASSERT_TRUE(poll_until(ends, [&] {
    return posted = posted || from.endpoint->post(write) == Endpoint::Posted::yes;
  })) << "busy until the deadline";
}

struct Pair {
  Pair(EndpointOptions const& one, EndpointOptions const& other, std::size_t bytes)
      : a(one, bytes), b(other, bytes) {
    introduce(a, b, "b");
    introduce(b, a, "a");
  }
  Pair(Wish const& way, std::size_t bytes) : Pair(EndpointOptions{way}, EndpointOptions{way}, bytes) {}

  static void introduce(End& one, End& to, char const* name) {
    one.peer = one.endpoint->add_peer(to.endpoint->address(), name);
    one.target = one.endpoint->add_region(one.peer, to.region->key());
  }

  End a;
  End b;
  std::vector<End*> both{&a, &b};
};

// A word at a time, and compared as a whole: sanitizers take long over single bytes.
inline void fill(std::vector<std::byte>& memory, Random& random) {
  for (std::size_t i = 0; i < memory.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t const word = random.bits();
    std::memcpy(memory.data() + i, &word, std::min(sizeof(word), memory.size() - i));
  }
}

inline bool same_bytes(std::span<std::byte const> one, std::span<std::byte const> other) {
  return one.size() == other.size() && (one.empty() || std::memcmp(one.data(), other.data(), one.size()) == 0);
}

}  // namespace switchyard::test
