// Addresses of TCP: host names, IPv4 and IPv6.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct HostPort {
  std::string host;  // a name, or an address without brackets
  std::uint16_t port = 0;
  // An IPv6 address is in brackets.
  [[nodiscard]] std::string text() const;
};

// Parses "host:port", port 1 to 65535; an IPv6 address is in brackets: "[::1]:29400". Throws InvalidArgument;
// `name` says where the text is from.
HostPort parse_host_port(std::string_view text, std::string_view name);
// The same for a host that has its port elsewhere: "node-1", "10.0.0.1", "::1" and "[::1]". Without brackets.
std::string parse_host(std::string_view text, std::string_view name);

class InetAddress {
 public:
  InetAddress() = default;
  InetAddress(sockaddr const* address, socklen_t length) noexcept;

  [[nodiscard]] sockaddr const* get() const noexcept { return reinterpret_cast<sockaddr const*>(&storage_); }
  [[nodiscard]] sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage_); }
  [[nodiscard]] socklen_t length() const noexcept { return length_; }
  // For calls that fill in an address: they find room for any, and say how much they took.
  [[nodiscard]] socklen_t* make_room() noexcept;

  [[nodiscard]] int family() const noexcept { return storage_.ss_family; }
  [[nodiscard]] std::uint16_t port() const noexcept;
  [[nodiscard]] HostPort host_port() const;  // in digits
  [[nodiscard]] std::string text() const { return host_port().text(); }
  [[nodiscard]] bool same_host(InetAddress const& other) const noexcept;
  // Only this machine (this network namespace) reaches it.
  [[nodiscard]] bool is_loopback() const noexcept;
  // 0.0.0.0 or ::, to listen on all addresses of the machine.
  [[nodiscard]] bool is_any() const noexcept;
  // Of this machine: what is sent there does not leave it. So it is with 0.0.0.0 and ::, which mean loopback then.
  [[nodiscard]] bool is_own() const;

 private:
  sockaddr_storage storage_{};
  socklen_t length_ = 0;
};

// All addresses of a host, best first. Empty when the name does not resolve (yet).
std::vector<InetAddress> resolve(HostPort const& server);

// Whom a connection may be made to.
enum class Reach : std::uint8_t {
  anywhere,
  this_machine,  // no further than what other users of this machine could pretend to be anyway
};

// Where `server` may be found. A store listens on loopback by default, while launchers hand out the name of the
// host: so when the name is one of this machine, loopback comes last in the list. Empty when the name does not
// resolve (yet), or nothing that it stands for is within reach.
std::vector<InetAddress> candidate_addresses(HostPort const& server, Reach reach = Reach::anywhere);

// Where to listen, given as a name or an address of this machine, or 0.0.0.0 or :: for all. Throws InvalidArgument
// when it is something else; `name` says where the text is from.
InetAddress address_to_listen_on(std::string const& listen, std::uint16_t port, std::string_view name);

// The address of this machine by which `server` can be reached from the farthest, in digits; loopback when it names
// another machine.
std::string own_address_of(HostPort const& server);

}  // namespace switchyard
