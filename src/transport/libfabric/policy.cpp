#include "transport/libfabric/policy.hpp"

#include <algorithm>
#include <array>

namespace switchyard::transport::libfabric {

namespace {

constexpr std::string_view inside_a_node =
    "reaches this node only, where ranks share memory; it hangs when a peer dies";

constexpr std::array table{
    Preference{"cxi", ""},
    Preference{"efa", ""},
    Preference{"psm3", ""},
    Preference{"opx", ""},
    Preference{"verbs;ofi_rxm", ""},
    Preference{"ucx", ""},
    Preference{"*", ""},  // any other
    // Native reliable datagrams over TCP: called net in 1.17, tcp from 1.18 on.
    Preference{"tcp", "", false},
    Preference{"net", "", false},
    // The same through a layer, at 15 times the memory, which crashed after a peer's death.
    Preference{"tcp;ofi_rxm", "", false},
    Preference{"net;ofi_rxm", "", false},
    Preference{"sockets", "", false},
    Preference{"udp;ofi_rxd", "", false},
    Preference{"shm", inside_a_node},
    Preference{"sm2", inside_a_node},
};

auto find(std::string_view provider) noexcept {
  auto const named = std::ranges::find(table, provider, &Preference::provider);
  return named != table.end() ? named : std::ranges::find(table, "*", &Preference::provider);
}

}  // namespace

std::span<Preference const> preferences() noexcept {
  return table;
}

std::size_t order_of(std::string_view provider) noexcept {
  return static_cast<std::size_t>(find(provider) - table.begin());
}

Preference const& preference_of(std::string_view provider) noexcept {
  return *find(provider);
}

bool answers_to(std::string_view provider, std::string_view asked) noexcept {
  auto const native_tcp = [](std::string_view name) { return name == "tcp" || name == "net"; };
  return provider == asked || (native_tcp(provider) && native_tcp(asked));
}

}  // namespace switchyard::transport::libfabric
