#include "bootstrap/address.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>

#include "base/number.hpp"

namespace switchyard {

namespace {

constexpr std::string_view ipv4_loopback = "127.0.0.1";

bool is_ipv6(std::string_view host) noexcept {
  return host.find(':') != std::string_view::npos;
}

// Brackets are for IPv6 addresses, which need them before a port.
bool takes_brackets(std::string_view host) {
  std::string const address(host.substr(0, host.find('%')));
  in6_addr parsed{};
  return ::inet_pton(AF_INET6, address.c_str(), &parsed) == 1;
}

// The host in "host" or "[host]", or nothing.
std::string_view without_brackets(std::string_view text) {
  if (!text.starts_with('[')) return text.find_first_of("[]: \t") == std::string_view::npos ? text : "";
  if (!text.ends_with(']')) return "";
  std::string_view const inside = text.substr(1, text.size() - 2);
  return takes_brackets(inside) ? inside : "";
}

in6_addr ipv6_of(InetAddress const& address) noexcept {
  sockaddr_in6 copy{};
  std::memcpy(&copy, address.get(), sizeof copy);
  return copy.sin6_addr;
}

// In host byte order. A socket for both versions shows an IPv4 address as an IPv6 one.
std::uint32_t ipv4_of(InetAddress const& address) noexcept {
  if (address.family() == AF_INET6) {
    in6_addr const whole = ipv6_of(address);
    std::uint32_t last = 0;
    std::memcpy(&last, &whole.s6_addr[12], sizeof last);
    return ntohl(last);
  }
  sockaddr_in copy{};
  std::memcpy(&copy, address.get(), sizeof copy);
  return ntohl(copy.sin_addr.s_addr);
}

bool has_ipv4(InetAddress const& address) noexcept {
  if (address.family() == AF_INET) return true;
  in6_addr const whole = ipv6_of(address);
  return address.family() == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&whole);
}

std::vector<InetAddress> addresses_of_interfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return {};
  std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> const owner(list, &::freeifaddrs);
  std::vector<InetAddress> found;
  for (ifaddrs const* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    int const family = each->ifa_addr->sa_family;
    if (family == AF_INET) found.emplace_back(each->ifa_addr, sizeof(sockaddr_in));
    if (family == AF_INET6) found.emplace_back(each->ifa_addr, sizeof(sockaddr_in6));
  }
  return found;
}

}  // namespace

std::string HostPort::text() const {
  return is_ipv6(host) ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

HostPort parse_host_port(std::string_view text, std::string_view name) {
  auto const colon = text.rfind(':');
  std::string_view const written = text.substr(0, colon);
  std::string_view const host = without_brackets(written);
  std::string_view const port = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  auto const number = parse_number<std::uint16_t>(port);
  bool const brackets = text.find_first_of("[]") != std::string_view::npos || std::ranges::count(text, ':') > 1;
  require(number.value_or(0) > 0 && !host.empty(),
          "{}: expected host:port with a port from 1 to 65535{}, seen '{}'", name,
          brackets ? ", and brackets around an IPv6 address and nothing else, as in [::1]:29400" : "", text);
  return {std::string(host), *number};
}

std::string parse_host(std::string_view text, std::string_view name) {
  std::string_view const host = takes_brackets(text) ? text : without_brackets(text);
  require(!host.empty(), "{}: expected a host name, an IPv4 address or an IPv6 address, seen '{}'", name, text);
  return std::string(host);
}

InetAddress::InetAddress(sockaddr const* address, socklen_t length) noexcept
    : length_(std::min<socklen_t>(length, sizeof storage_)) {
  std::memcpy(&storage_, address, length_);
}

socklen_t* InetAddress::make_room() noexcept {
  length_ = sizeof storage_;
  return &length_;
}

std::uint16_t InetAddress::port() const noexcept {
  // Both kinds of address have it in the same place.
  sockaddr_in copy{};
  std::memcpy(&copy, &storage_, sizeof copy);
  return ntohs(copy.sin_port);
}

HostPort InetAddress::host_port() const {
  std::array<char, NI_MAXHOST> host{};
  if (::getnameinfo(get(), length_, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST) != 0) return {"?", 0};
  return {host.data(), port()};
}

bool InetAddress::same_host(InetAddress const& other) const noexcept {
  if (has_ipv4(*this) || has_ipv4(other))
    return has_ipv4(*this) && has_ipv4(other) && ipv4_of(*this) == ipv4_of(other);
  in6_addr const mine = ipv6_of(*this);
  in6_addr const theirs = ipv6_of(other);
  return family() == other.family() && std::memcmp(&mine, &theirs, sizeof mine) == 0;
}

bool InetAddress::is_loopback() const noexcept {
  if (has_ipv4(*this)) return ipv4_of(*this) >> 24U == IN_LOOPBACKNET;
  in6_addr const whole = ipv6_of(*this);
  return family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&whole);
}

bool InetAddress::is_any() const noexcept {
  if (has_ipv4(*this)) return ipv4_of(*this) == INADDR_ANY;
  in6_addr const whole = ipv6_of(*this);
  return family() == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&whole);
}

// Asked of the interfaces: a machine may be set up so that bind() takes addresses that it does not have.
bool InetAddress::is_own() const {
  if (is_loopback() || is_any()) return true;
  auto const own = addresses_of_interfaces();
  return std::ranges::any_of(own, [&](InetAddress const& each) { return each.same_host(*this); });
}

std::vector<InetAddress> resolve(HostPort const& server) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &found) != 0) return {};
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> const owner(found, &::freeaddrinfo);
  std::vector<InetAddress> addresses;
  for (addrinfo const* each = found; each != nullptr; each = each->ai_next) {
    InetAddress const address(each->ai_addr, each->ai_addrlen);
    bool const known = std::ranges::any_of(addresses, [&](auto const& other) { return other.same_host(address); });
    if (!known) addresses.push_back(address);
  }
  return addresses;
}

std::vector<InetAddress> candidate_addresses(HostPort const& server, Reach reach) {
  std::vector<InetAddress> addresses = resolve(server);
  if (reach == Reach::this_machine)
    std::erase_if(addresses, [](InetAddress const& address) { return !address.is_own(); });
  std::vector<InetAddress> const loopback = resolve({std::string(ipv4_loopback), server.port});
  if (loopback.empty()) return addresses;
  bool const tries_it =
      std::ranges::any_of(addresses, [&](auto const& address) { return address.same_host(loopback.front()); });
  bool const own = std::ranges::any_of(addresses, [](auto const& address) { return address.is_own(); });
  if (!tries_it && own) addresses.push_back(loopback.front());
  return addresses;
}

InetAddress address_to_listen_on(std::string const& listen, std::uint16_t port, std::string_view name) {
  std::vector<InetAddress> addresses;
  try {
    addresses = resolve({parse_host(listen, name), port});
  } catch (InvalidArgument const&) {  // no host at all: the text below says it better
  }
  std::erase_if(addresses, [](auto const& address) { return !address.is_own(); });
  require(!addresses.empty(), "{}: expected an address or a name of this machine, seen '{}'", name, listen);
  // Where a name stands for both, IPv4: every machine has it.
  auto const ipv4 = std::ranges::find(addresses, AF_INET, &InetAddress::family);
  return ipv4 != addresses.end() ? *ipv4 : addresses.front();
}

std::string own_address_of(HostPort const& server) {
  std::vector<InetAddress> addresses = resolve(server);
  std::erase_if(addresses, [](auto const& address) { return !address.is_own(); });
  if (addresses.empty()) return std::string(ipv4_loopback);
  auto const far = std::ranges::find(addresses, false, &InetAddress::is_loopback);
  if (far != addresses.end()) return far->host_port().host;
  auto const ipv4 = std::ranges::find(addresses, AF_INET, &InetAddress::family);
  return (ipv4 != addresses.end() ? *ipv4 : addresses.front()).host_port().host;
}

}  // namespace switchyard
