// The ways over which the tests of libfabric's transport run, each a provider and how it counts.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "switchyard/error.hpp"
#include "transport/libfabric/libfabric.hpp"

namespace switchyard::transport::libfabric {

// For GoogleTest.
inline void PrintTo(Wish const& way, std::ostream* out) {
  *out << way.provider;
}

}  // namespace switchyard::transport::libfabric

namespace switchyard::test {

using transport::libfabric::Counting;
using transport::libfabric::EndpointOptions;
using transport::libfabric::Wish;

inline EndpointOptions at(std::string const& address, Wish wish = {}) {
  EndpointOptions options;
  options.wish = std::move(wish);
  options.wish.address = address;
  return options;
}

inline std::vector<transport::libfabric::Nic> chosen_of(Wish const& wish) {
  auto nics = transport::libfabric::report(wish).nics;
  std::erase_if(nics, [](auto const& nic) { return !nic.chosen(); });
  return nics;
}

inline bool is_usable(Wish const& wish) {
  try {
    return !chosen_of(wish).empty();
  } catch (InvalidArgument const&) {
    return false;  // not there
  }
}

// Those that this machine's libfabric has. Besides the one that is used: `sockets`, which says of own completions
// that they carry remote data, and the layered ones; and those of tests/strict_fabric, where SWITCHYARD_LIBFABRIC
// names it. libfabric is asked once, which takes longer than many a case.
inline std::vector<Wish> const& ways() {
  static std::vector<Wish> const all = [] {
    std::vector<Wish> found;
    for (char const* provider : {"tcp", "tcp;ofi_rxm", "sockets", "cxi", "efa", "verbs;ofi_rxm", "strictest"}) {
      for (Counting const counting : {Counting::remote, Counting::messages}) {
        Wish wish{provider, {}, "127.0.0.1", counting};
        if (is_usable(wish)) found.push_back(wish);
      }
    }
    return found;
  }();
  return all;
}

// `tcp;ofi_rxm` crashes when a connection ends under writes (1.17 and 2.5 do, where an error has no context): one
// of the reasons why it is not used where another is.
inline std::vector<Wish> ways_that_survive() {
  std::vector<Wish> all = ways();
  std::erase_if(all, [](Wish const& way) { return way.provider == "tcp;ofi_rxm"; });
  return all;
}

inline std::string name_of_way(testing::TestParamInfo<Wish> const& info) {
  std::string name = info.param.provider + (info.param.counting == Counting::remote ? "_remote" : "_messages");
  std::ranges::replace_if(
      name, [](char letter) { return letter == ';'; }, '_');
  return name;
}

}  // namespace switchyard::test
