// A token that others can compute is good for this machine only.
#include "bootstrap/token_rule.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "bootstrap/address.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/host_name.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using test::own_name;
using test::run_threads;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Sets a variable of this process for as long as it lives; each test is a process of its own.
class Variable {
 public:
  Variable(char const* name, char const* value) : name_(name) { ::setenv(name, value, 1); }
  ~Variable() { ::unsetenv(name_); }
  Variable(Variable const&) = delete;
  Variable& operator=(Variable const&) = delete;

 private:
  char const* name_;
};

// An address of this machine that others may reach, if it has one.
std::string outer_address() {
  for (InetAddress const& address : resolve({own_name(), 0}))
    if (address.is_own() && !address.is_loopback()) return address.host_port().host;
  return {};
}

CommunicatorOptions options_with(std::string token, bool derived, std::string address = "127.0.0.1:29400") {
  CommunicatorOptions options;
  options.size = 2;
  options.address = std::move(address);
  options.token = std::move(token);
  options.derived_token = derived;
  options.timeout = std::chrono::milliseconds{20000};
  return options;
}

std::string complaint_about(CommunicatorOptions const& options) {
  try {
    Communicator::connect(options);
  } catch (InvalidArgument const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TokenRule, OnlyAGivenTokenIsForOtherMachines) {
  EXPECT_FALSE(token_is_for_this_machine(options_with("secret", false)));
  EXPECT_TRUE(token_is_for_this_machine(options_with("derived", true)));
  EXPECT_TRUE(token_is_for_this_machine(options_with("", false)));
  Variable const allow("SWITCHYARD_ALLOW_DEFAULT_TOKEN", "1");
  EXPECT_FALSE(token_is_for_this_machine(options_with("derived", true)));
  EXPECT_TRUE(token_is_for_this_machine(options_with("", false)));
}

TEST(TokenRule, ADerivedTokenListensOnLoopbackWhateverTheAddress) {
  for (char const* address : {"127.0.0.1:1", "node-0:1", "203.0.113.1:1", "0.0.0.0:1", "[::1]:1"}) {
    EXPECT_EQ(where_to_listen(options_with("derived", true, address)), "127.0.0.1") << address;
    EXPECT_EQ(where_to_listen(options_with("", false, address)), "127.0.0.1") << address;
  }
}

TEST(TokenRule, AGivenTokenListensWhereTheStoreIsSaidToBe) {
  EXPECT_EQ(where_to_listen(options_with("secret", false, "127.0.0.1:1")), "127.0.0.1");
  EXPECT_EQ(where_to_listen(options_with("secret", false, "127.0.0.7:1")), "127.0.0.7");
  EXPECT_EQ(where_to_listen(options_with("secret", false, "[::1]:1")), "::1");
  EXPECT_EQ(where_to_listen(options_with("secret", false, "localhost:1")), "127.0.0.1");
  EXPECT_EQ(where_to_listen(options_with("secret", false, "203.0.113.1:1")), "127.0.0.1");  // of another machine
  EXPECT_EQ(where_to_listen(options_with("secret", false, "0.0.0.0:1")), "0.0.0.0");
  if (std::string const outer = outer_address(); !outer.empty()) {
    EXPECT_EQ(where_to_listen(options_with("secret", false, HostPort{own_name(), 1}.text())), outer);
  }
}

TEST(TokenRule, ListeningForOthersTakesASecret) {
  Variable const listen("SWITCHYARD_LISTEN", "0.0.0.0");
  EXPECT_EQ(where_to_listen(options_with("secret", false)), "0.0.0.0");
  std::string const text = complaint_about(options_with("derived", true));
  EXPECT_THAT(text, AllOf(StartsWith("SWITCHYARD_TOKEN: expected a secret"), HasSubstr("listens on 0.0.0.0"),
                          HasSubstr("openssl rand -hex 16"), HasSubstr("SWITCHYARD_ALLOW_DEFAULT_TOKEN=1"),
                          Not(HasSubstr("\n"))));
  EXPECT_THAT(complaint_about(options_with("", false)), StartsWith("token: expected a secret"));
  EXPECT_THROW(StoreServer(""), InvalidArgument);
  StoreServer const given("secret");
  EXPECT_THAT(given.address(), StartsWith("127.0.0.1:"));
  Variable const allow("SWITCHYARD_ALLOW_DEFAULT_TOKEN", "1");
  EXPECT_EQ(where_to_listen(options_with("derived", true)), "0.0.0.0");
}

TEST(TokenRule, ADerivedTokenMayListenOnLoopbackOfAnyKind) {
  for (char const* address : {"127.0.0.1", "127.0.0.5", "localhost", "::1"}) {
    Variable const listen("SWITCHYARD_LISTEN", address);
    EXPECT_EQ(where_to_listen(options_with("derived", true)), address);
  }
}

// At once, not after the deadline: 203.0.113.1 is for documentation, so nobody answers there.
TEST(TokenRule, AStoreOnAnotherMachineTakesASecret) {
  CommunicatorOptions options = options_with("derived", true, "203.0.113.1:29400");
  options.rank = 1;
  options.timeout = std::chrono::hours{1};
  EXPECT_THAT(complaint_about(options),
              AllOf(StartsWith("SWITCHYARD_TOKEN: expected a secret"),
                    HasSubstr("the store at 203.0.113.1:29400 is on another machine"), Not(HasSubstr("\n"))));
  options.derived_token = false;
  options.token.clear();
  EXPECT_THAT(complaint_about(options),
              AllOf(StartsWith("token: expected a secret"), Not(HasSubstr("SWITCHYARD_TOKEN"))));
  Variable const allow("SWITCHYARD_ALLOW_DEFAULT_TOKEN", "1");
  options.derived_token = true;
  options.token = "derived";
  options.timeout = std::chrono::milliseconds{50};
  EXPECT_THROW(Communicator::connect(options), Error);  // nobody is there, but it was tried
  try {
    Communicator::connect(options);
  } catch (InvalidArgument const& error) {
    ADD_FAILURE() << error.what();
  } catch (Error const&) {
  }
}

// As launchers do it whose ranks are all here: the address is the name of the host, or what that stands for.
TEST(TokenRule, RanksOfThisMachineMeetUnderItsNameWithADerivedToken) {
  std::vector<std::string> hosts{own_name(), "localhost", "127.0.0.1", "127.0.1.1"};
  if (std::string const outer = outer_address(); !outer.empty()) hosts.push_back(outer);
  for (std::string const& host : hosts) {
    for (auto const& [token, derived] :
         {std::pair("derived", true), std::pair("secret", false), std::pair("", false)}) {
      std::uint16_t const port = TcpStoreServer({.listen = "127.0.0.1", .port = 0, .token = {}}).port();
      run_threads(2, [&, token = token, derived = derived](int rank) {
        CommunicatorOptions options = options_with(token, derived, HostPort{host, port}.text());
        options.rank = rank;
        EXPECT_NO_THROW(Communicator::connect(options).barrier()) << host << ' ' << token;
      });
    }
  }
}

}  // namespace
}  // namespace switchyard
