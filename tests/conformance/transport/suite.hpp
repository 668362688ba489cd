// The suite that every back end of src/transport passes. A back end joins it in a file of its own:
//
//   INSTANTIATE_TEST_SUITE_P(Loopback, TransportSuite, testing::Values(BackEnd{.name = "loopback", .make = ...}));
//
// Most tests drive all endpoints from one thread, which polls them in turn, so that what a seed does it does again.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "transport/patience.hpp"
#include "transport/transport.hpp"

namespace switchyard::test {

struct BackEnd {
  std::string name;
  // Makes endpoints that may be connected to one another. The seed is for what they do by chance.
  std::function<std::vector<std::unique_ptr<transport::Endpoint>>(int count, std::uint64_t seed)> make;
  int most_endpoints = 24;
  int seeds = 1;  // how many each test tries
};

void PrintTo(BackEnd const& back_end, std::ostream* out);

// What an endpoint has reported so far.
struct Log {
  std::vector<std::uint32_t> arrived;
  std::vector<std::uint64_t> sent;
  std::vector<transport::Event> failed;

  void take(transport::Event const& event);
};

struct Member {
  // Memory outlives its registration, and that does not outlive the endpoint.
  std::vector<std::byte> source_bytes;
  std::vector<std::byte> landing_bytes;
  std::unique_ptr<transport::Endpoint> endpoint;
  std::unique_ptr<transport::Region> source;
  std::unique_ptr<transport::Region> landing;
  // By member: how this one calls it and its landing. A member does not know itself.
  std::vector<transport::Peer> peers;
  std::vector<transport::PeerRegion> landings;
  Log log;
};

// Endpoints that know one another, each with memory to write from and memory to be written to.
class Mesh {
 public:
  Mesh(BackEnd const& back_end, int count, std::size_t bytes, std::uint64_t seed);

  Member& operator[](int member) { return members_[static_cast<std::size_t>(member)]; }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }
  // A write without bytes; the caller adds what it wants.
  transport::Write write(int from, int to);

  // For tests of one thread. Polls every endpoint once, into its log; then `after`, if any.
  void poll();
  void poll_until(std::function<bool()> const& done, char const* what);
  // Polls while it is busy.
  void post(int from, transport::Write const& write);
  // Polls until so much has come, at all members together, and then on for a while: nothing more may come.
  void settle(std::size_t sent, std::size_t arrived);
  [[nodiscard]] std::size_t num_sent() const;
  [[nodiscard]] std::size_t num_arrived() const;
  [[nodiscard]] std::size_t num_failed() const;

  static transport::Patience patience(std::string const& whom);

 private:
  void connect();

  std::vector<Member> members_;
};

class TransportSuite : public testing::TestWithParam<BackEnd> {
 protected:
  // Runs a test for each seed; SWITCHYARD_TEST_SEED repeats the one that a failure has named.
  void for_each_seed(std::function<void(std::uint64_t seed)> const& test);
};

// The payload that `key` stands for.
void fill_payload(std::span<std::byte> bytes, std::uint64_t key);
// The first place where the bytes are something else; their number if there is none.
std::size_t first_difference(std::span<std::byte const> bytes, std::uint64_t key);

}  // namespace switchyard::test
