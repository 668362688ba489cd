// What is chosen, and what is said of the rest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <vector>

#include "fabric/ways.hpp"
#include "support/check.hpp"
#include "switchyard/error.hpp"
#include "transport/libfabric/ip.hpp"
#include "transport/libfabric/libfabric.hpp"
#include "transport/libfabric/library.hpp"
#include "transport/libfabric/policy.hpp"

namespace switchyard::test {
namespace {

using namespace transport::libfabric;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(FabricLibrary, OneThatIsMissingSaysWhatToInstall) {
  auto const error =
      expect_throw<Unsupported>("a missing library", [] { (void)Library::load("libfabric-nowhere.so"); });
  EXPECT_THAT(error.what(), AllOf(HasSubstr("libfabric-nowhere.so"), HasSubstr("install libfabric"),
                                  HasSubstr("SWITCHYARD_LIBFABRIC")));
}

TEST(FabricLibrary, AnotherLibraryIsNone) {
  auto const error = expect_throw<Unsupported>("libc", [] { (void)Library::load("libc.so.6"); });
  EXPECT_THAT(error.what(), AllOf(HasSubstr("libc.so.6"), HasSubstr("fi_version")));
}

// Libraries for PSM come with libfabric, and would catch what the process gets, not only when it crashes.
TEST(FabricLibrary, LeavesSignalsAlone) {
  auto const handlers = [] {
    std::vector<void (*)(int)> found;
    for (int const signal : {SIGINT, SIGTERM, SIGSEGV, SIGBUS, SIGABRT, SIGILL}) {
      struct sigaction action {};
      EXPECT_EQ(sigaction(signal, nullptr, &action), 0);
      found.push_back(action.sa_handler);
    }
    return found;
  };
  auto const before = handlers();
  (void)report({});
  EXPECT_EQ(handlers(), before);
}

TEST(FabricPolicy, PrefersHardwareThenNativeTcp) {
  auto const before = [](char const* one, char const* other) { return order_of(one) < order_of(other); };
  EXPECT_TRUE(before("cxi", "tcp"));
  EXPECT_TRUE(before("efa", "tcp"));
  EXPECT_TRUE(before("verbs;ofi_rxm", "net"));
  EXPECT_TRUE(before("some NIC of tomorrow", "tcp"));
  EXPECT_TRUE(before("net", "tcp;ofi_rxm"));
  EXPECT_TRUE(before("tcp", "sockets"));
  EXPECT_THAT(preference_of("some NIC of tomorrow").why_never, IsEmpty());
  EXPECT_FALSE(preference_of("shm").why_never.empty());
}

TEST(FabricPolicy, NativeTcpHasTwoNames) {
  EXPECT_TRUE(answers_to("net", "tcp"));
  EXPECT_TRUE(answers_to("tcp", "net"));
  EXPECT_FALSE(answers_to("tcp;ofi_rxm", "tcp"));
}

TEST(FabricIp, KnowsWhichAddressesStayHere) {
  EXPECT_TRUE(is_loopback("127.0.0.2"));
  EXPECT_TRUE(is_loopback("::1"));
  EXPECT_FALSE(is_loopback("10.127.0.1"));
  EXPECT_TRUE(is_link_local("fe80::1"));
  EXPECT_FALSE(is_link_local("fd00::1"));
  EXPECT_EQ(ip_text(0, "bytes", 5), "");
}

TEST(FabricProviders, EachIsUsedOrSaysWhyNot) {
  Report const all = report({});
  EXPECT_THAT(all.library, HasSubstr("libfabric"));
  ASSERT_FALSE(all.nics.empty());
  for (Nic const& nic : all.nics) {
    EXPECT_FALSE(nic.provider.empty());
    bool const stays_here = nic.provider == "shm" || is_loopback(nic.address);
    EXPECT_FALSE(stays_here && nic.chosen()) << nic.provider << " / " << nic.address;
  }
}

TEST(FabricProviders, LoopbackIsUsedWhereItIsAskedFor) {
  Wish wish;
  wish.address = "127.0.0.1";
  auto const nics = chosen_of(wish);
  ASSERT_EQ(nics.size(), 1U);
  EXPECT_TRUE(answers_to(nics[0].provider, "tcp")) << nics[0].provider;
  EXPECT_EQ(nics[0].address, "127.0.0.1");
  EXPECT_TRUE(nics[0].counts_remotely);
}

TEST(FabricProviders, ANicIsNamedByItsNameOrAddress) {
  for (char const* name : {"lo", "127.0.0.1"}) {
    Wish wish;
    wish.nics = {name};
    auto const nics = chosen_of(wish);
    ASSERT_EQ(nics.size(), 1U) << name;
    EXPECT_EQ(nics[0].name, "lo");
  }
}

TEST(FabricProviders, WhatIsNotThereIsRefusedWithWhatIs) {
  Wish wish;
  wish.provider = "tpc";
  auto const provider = expect_throw<InvalidArgument>("a provider", [&] { (void)report(wish); });
  EXPECT_THAT(provider.what(),
              AllOf(HasSubstr("SWITCHYARD_FABRIC_PROVIDER"), HasSubstr("tpc"), HasSubstr("sockets")));
  wish = {};
  wish.nics = {"lo", "eth77"};
  auto const nic = expect_throw<InvalidArgument>("a NIC", [&] { (void)report(wish); });
  EXPECT_THAT(nic.what(), AllOf(HasSubstr("SWITCHYARD_FABRIC_NICS"), HasSubstr("eth77"), HasSubstr("lo")));
}

TEST(FabricProviders, TheEnvironmentSaysWhatToTake) {
  ::setenv("SWITCHYARD_FABRIC_PROVIDER", "sockets", 1);
  ::setenv("SWITCHYARD_FABRIC_NICS", "lo,eth0,", 1);
  Wish const wish = wish_of_environment();
  EXPECT_EQ(wish.provider, "sockets");
  EXPECT_EQ(wish.nics, (std::vector<std::string>{"lo", "eth0"}));
  ::unsetenv("SWITCHYARD_FABRIC_PROVIDER");
  ::unsetenv("SWITCHYARD_FABRIC_NICS");
  EXPECT_TRUE(wish_of_environment().provider.empty());
  EXPECT_TRUE(wish_of_environment().nics.empty());
}

TEST(FabricProviders, CountingByMessagesIsFoundByWhatItNeeds) {
  Wish wish;
  wish.address = "127.0.0.1";
  wish.counting = Counting::messages;
  auto const nics = chosen_of(wish);
  ASSERT_EQ(nics.size(), 1U);
  EXPECT_FALSE(nics[0].counts_remotely);
}

}  // namespace
}  // namespace switchyard::test
