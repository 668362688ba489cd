// Addresses as people write them, and stores that are served and found at them.
#include "bootstrap/address.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/host_name.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::bytes_of;
using test::own_name;
using test::plenty;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

bool has_ipv6() {
  UniqueFd const socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  InetAddress const address = resolve({"::1", 0}).at(0);
  return socket && ::bind(socket.get(), address.get(), address.length()) == 0;
}

TEST(HostPort, IsParsed) {
  EXPECT_EQ(parse_host_port("node-1:29400", "x").host, "node-1");
  EXPECT_EQ(parse_host_port("10.0.0.1:1", "x").port, 1);
  for (char const* host : {"::1", "fe80::1%eth0", "2001:db8::8a2e:370:7334", "::ffff:10.0.0.1"}) {
    HostPort const parsed = parse_host_port("[" + std::string(host) + "]:29400", "x");
    EXPECT_EQ(parsed.host, host);
    EXPECT_EQ(parsed.port, 29400);
    EXPECT_EQ(parsed.text(), "[" + std::string(host) + "]:29400");
  }
  EXPECT_EQ((HostPort{"node-1", 5}.text()), "node-1:5");
}

std::string complaint_about(std::string const& text) {
  try {
    parse_host_port(text, "WHERE");
  } catch (InvalidArgument const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(HostPort, IsRefused) {
  for (char const* bad : {"", ":", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x", "a b:1"})
    EXPECT_THAT(
        complaint_about(bad),
        AllOf(HasSubstr("WHERE: expected host:port with a port from 1 to 65535, seen"), Not(HasSubstr("brackets"))))
        << bad;
  // Brackets that are missing, or in the wrong place, are named.
  for (char const* bad : {"::1:29400", "::1", "2001:db8::1:80", "[::1]", "[::1]:", "[::1:80", "::1]:80", "[]:80",
                          "[host]:80", "[10.0.0.1]:80", "[::1]x:80", "x[::1]:80", "[[::1]]:80", "[::1]:80:80"})
    EXPECT_THAT(complaint_about(bad), HasSubstr("brackets around an IPv6 address and nothing else")) << bad;
}

TEST(Host, IsParsed) {
  for (char const* host : {"node-1", "10.0.0.1", "::1", "fe80::1%eth0"}) EXPECT_EQ(parse_host(host, "x"), host);
  EXPECT_EQ(parse_host("[::1]", "x"), "::1");
  for (char const* bad : {"", "[]", "[host]", "[::1", "::1]", "a b", "host:1", ":1:"})
    EXPECT_THROW(parse_host(bad, "x"), InvalidArgument) << bad;
}

TEST(InetAddress, KnowsWhoReachesIt) {
  auto const at = [](char const* host) { return resolve({host, 7}).at(0); };
  for (char const* host : {"127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"}) {
    EXPECT_TRUE(at(host).is_loopback()) << host;
    EXPECT_TRUE(at(host).is_own()) << host;
  }
  for (char const* host : {"203.0.113.1", "2001:db8::1", "::ffff:203.0.113.1", "128.0.0.1"}) {  // for documentation
    EXPECT_FALSE(at(host).is_loopback()) << host;
    EXPECT_FALSE(at(host).is_own()) << host;
  }
  EXPECT_TRUE(at("0.0.0.0").is_any());
  EXPECT_TRUE(at("::").is_any());
  EXPECT_FALSE(at("::1").is_any());
  EXPECT_TRUE(at("::ffff:127.0.0.1").same_host(at("127.0.0.1")));
  EXPECT_FALSE(at("::1").same_host(at("127.0.0.1")));
  EXPECT_EQ(at("::1").text(), "[::1]:7");
  EXPECT_EQ(at("10.0.0.1").text(), "10.0.0.1:7");
}

TEST(Candidates, EndWithLoopbackWhereTheNameIsOurs) {
  auto const candidates = candidate_addresses({own_name(), 7});
  ASSERT_FALSE(candidates.empty());
  EXPECT_TRUE(candidates.back().is_loopback());
  EXPECT_EQ(candidate_addresses({"127.0.0.1", 7}).size(), 1U);
}

TEST(Candidates, StayOnThisMachineWhereTheyMust) {
  EXPECT_EQ(candidate_addresses({"203.0.113.1", 7}).size(), 1U);
  EXPECT_TRUE(candidate_addresses({"203.0.113.1", 7}, Reach::this_machine).empty());
  EXPECT_FALSE(candidate_addresses({own_name(), 7}, Reach::this_machine).empty());
  EXPECT_FALSE(candidate_addresses({"localhost", 7}, Reach::this_machine).empty());
}

TEST(Listening, TakesAddressesAndNamesOfThisMachine) {
  EXPECT_EQ(address_to_listen_on("127.0.0.1", 7, "x").text(), "127.0.0.1:7");
  EXPECT_EQ(address_to_listen_on("localhost", 7, "x").text(), "127.0.0.1:7");
  EXPECT_EQ(address_to_listen_on("[::1]", 7, "x").text(), "[::1]:7");
  EXPECT_TRUE(address_to_listen_on("0.0.0.0", 7, "x").is_any());
  EXPECT_TRUE(address_to_listen_on(own_name(), 7, "x").is_own());
  for (char const* bad : {"203.0.113.1", "2001:db8::1", "127.0.0.1:7", "no such name", "", "host.invalid"}) {
    try {
      address_to_listen_on(bad, 7, "WHERE");
      ADD_FAILURE() << bad;
    } catch (InvalidArgument const& error) {
      EXPECT_EQ(error.what(),
                "WHERE: expected an address or a name of this machine, seen '" + std::string(bad) + "'");
    }
  }
}

// A store that listens at `listen`, reached under each of `names`.
void expect_found(std::string const& listen, std::initializer_list<char const*> names) {
  TcpStoreServer const server({.listen = listen, .port = 0, .token = "the token"});
  TcpStoreClient own(server.address(), "the token", plenty);
  own.set("key", bytes_of("value"));
  for (char const* name : names) {
    TcpStoreClient client({name, server.port()}, "the token", plenty);
    EXPECT_EQ(client.get("key", Deadline(plenty)).size(), 5U) << listen << ' ' << name;
  }
}

TEST(Listening, IsFoundUnderAllNames) {
  std::string const name = own_name();
  expect_found("127.0.0.1", {"127.0.0.1", "localhost", name.c_str()});
  expect_found("127.0.0.9", {"127.0.0.9"});
  expect_found("0.0.0.0", {"127.0.0.1", "localhost", "0.0.0.0", name.c_str()});
  expect_found("localhost", {"127.0.0.1", "localhost"});
  expect_found(name, {name.c_str()});
}

TEST(Listening, OnIpv6) {
  if (!has_ipv6()) GTEST_SKIP() << "this machine has no IPv6";
  expect_found("::1", {"::1"});
  expect_found("[::1]", {"::1"});
  expect_found("::", {"::1", "127.0.0.1", "localhost"});
}

// A name with several addresses: the store is at the last that is tried.
TEST(Listening, OnOneOfSeveralAddresses) {
  HostPort where{own_name(), 0};
  auto const candidates = candidate_addresses({where.host, 1});
  for (InetAddress const& candidate : candidates) {
    TcpStoreServer const server({.listen = candidate.host_port().host, .port = 0, .token = "the token"});
    where.port = server.port();
    TcpStoreClient(where, "the token", plenty).set("key", {});
  }
}

TEST(Client, NamesWhatDoesNotAnswer) {
  try {
    TcpStoreClient({"host.invalid", 7}, "the token", milliseconds{50});
    FAIL();
  } catch (Timeout const& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("host.invalid:7"), HasSubstr("does not resolve")));
  }
  if (!has_ipv6()) GTEST_SKIP() << "this machine has no IPv6";
  std::uint16_t const port = TcpStoreServer({.listen = "::1", .port = 0, .token = {}}).port();
  try {
    TcpStoreClient({"::1", port}, "the token", milliseconds{50});
    FAIL();
  } catch (Timeout const& error) {
    EXPECT_THAT(error.what(), HasSubstr("store at [::1]:"));
  }
}

}  // namespace
}  // namespace switchyard
