#include "conformance/transport/suite.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {

using transport::Endpoint;
using transport::Event;
using transport::Write;

void PrintTo(BackEnd const& back_end, std::ostream* out) {
  *out << back_end.name;
}

void Log::take(Event const& event) {
  switch (event.kind) {
    case Event::Kind::arrived: arrived.push_back(event.immediate); return;
    case Event::Kind::sent: sent.push_back(event.context); return;
    case Event::Kind::failed: failed.push_back(event); return;
  }
  ADD_FAILURE() << "an event of kind " << static_cast<int>(event.kind);
}

Mesh::Mesh(BackEnd const& back_end, int count, std::size_t bytes, std::uint64_t seed)
    : members_(static_cast<std::size_t>(count)) {
  auto endpoints = back_end.make(count, seed);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    member.endpoint = std::move(endpoints.at(i));
    member.source_bytes.resize(bytes);
    member.landing_bytes.resize(bytes);
    member.source = member.endpoint->register_memory(member.source_bytes);
    member.landing = member.endpoint->register_memory(member.landing_bytes);
  }
  connect();
}

void Mesh::connect() {
  for (Member& member : members_) {
    for (Member const& other : members_) {
      bool const itself = &other == &member;
      member.peers.push_back(itself
                                 ? transport::Peer{-1}
                                 : member.endpoint->add_peer(other.endpoint->address(),
                                                             fmt::format("member {}", &other - members_.data())));
      member.landings.push_back(itself ? transport::PeerRegion{-1}
                                       : member.endpoint->add_region(member.peers.back(), other.landing->key()));
    }
  }
}

Write Mesh::write(int from, int to) {
  Member const& member = (*this)[from];
  return {.to = member.peers.at(static_cast<std::size_t>(to)),
          .into = member.landings.at(static_cast<std::size_t>(to))};
}

transport::Patience Mesh::patience(std::string const& whom) {
  return {.deadline = Deadline(hang_deadline), .peer = whom};
}

void Mesh::poll() {
  for (Member& member : members_)
    transport::poll_once(*member.endpoint, [&member](Event const& event) { member.log.take(event); });
}

void Mesh::poll_until(std::function<bool()> const& done, char const* what) {
  Deadline const deadline(hang_deadline);
  while (!done()) {
    if (deadline.expired()) throw Timeout(fmt::format("expected {} in time", what));
    poll();
  }
}

void Mesh::post(int from, Write const& write) {
  poll_until([&] { return (*this)[from].endpoint->post(write) == Endpoint::Posted::yes; }, "room for a write");
}

void Mesh::settle(std::size_t sent, std::size_t arrived) {
  poll_until([&] { return num_sent() + num_failed() >= sent && num_arrived() >= arrived; }, "all events");
  constexpr int longer = 5000;  // than anything is held back by a faulty endpoint
  for (int i = 0; i < longer; ++i) poll();
  EXPECT_EQ(num_sent(), sent);
  EXPECT_EQ(num_arrived(), arrived);
  EXPECT_EQ(num_failed(), 0U);
}

std::size_t Mesh::num_sent() const {
  std::size_t count = 0;
  for (Member const& member : members_) count += member.log.sent.size();
  return count;
}

std::size_t Mesh::num_arrived() const {
  std::size_t count = 0;
  for (Member const& member : members_) count += member.log.arrived.size();
  return count;
}

std::size_t Mesh::num_failed() const {
  std::size_t count = 0;
  for (Member const& member : members_) count += member.log.failed.size();
  return count;
}

void TransportSuite::for_each_seed(std::function<void(std::uint64_t seed)> const& test) {
  constexpr std::uint64_t none = 0;
  if (std::uint64_t const given = seed_or(none); given != none) return test(given);
  int const seeds = small_scale() ? (GetParam().seeds + 3) / 4 : GetParam().seeds;
  for (int seed = 1; seed <= seeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(fmt::format("SWITCHYARD_TEST_SEED={}", seed));
    test(static_cast<std::uint64_t>(seed));
  }
}

namespace {

// Eight bytes of a payload; fewer at its end.
struct Word {
  Word(std::uint64_t key, std::size_t begin, std::size_t end)
      : bytes(std::bit_cast<std::array<std::byte, 8>>(mix(key, begin / 8))),
        count(std::min(end - begin, bytes.size())) {}

  std::array<std::byte, 8> bytes;
  std::size_t count;
};

}  // namespace

void fill_payload(std::span<std::byte> bytes, std::uint64_t key) {
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    Word const word(key, i, bytes.size());
    std::memcpy(&bytes[i], word.bytes.data(), word.count);
  }
}

std::size_t first_difference(std::span<std::byte const> bytes, std::uint64_t key) {
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    Word const word(key, i, bytes.size());
    if (std::memcmp(&bytes[i], word.bytes.data(), word.count) == 0) continue;
    auto const expected = std::span(word.bytes).first(word.count);
    return i + static_cast<std::size_t>(std::ranges::mismatch(expected, bytes.subspan(i)).in1 - expected.begin());
  }
  return bytes.size();
}

}  // namespace switchyard::test
