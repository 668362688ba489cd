// Which of several ways to the network is taken. Whether a provider can do what we need is asked of fi_getinfo;
// here is only what it does not say: which is better, and which not to use.
#pragma once

#include <span>
#include <string_view>

namespace switchyard::transport::libfabric {

struct Preference {
  std::string_view provider;
  std::string_view why_never;  // empty: it may be used
  // Where each NIC may be a network of its own (a bridge of containers, a management network), only one is used by
  // itself; where all NICs are rails of one fabric, all are.
  bool rails = true;
};

// Best first.
std::span<Preference const> preferences() noexcept;

// Its place in that order; providers that nobody here has seen come after those for NICs, and before TCP.
std::size_t order_of(std::string_view provider) noexcept;
Preference const& preference_of(std::string_view provider) noexcept;

// Whether a user who asks for `asked` may get `provider`: the native provider over TCP has changed its name.
bool answers_to(std::string_view provider, std::string_view asked) noexcept;

}  // namespace switchyard::transport::libfabric
