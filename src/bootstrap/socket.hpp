// Small steps that all sockets of the bootstrap share.
#pragma once

#include <netinet/in.h>
#include <poll.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"

namespace switchyard {

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
  [[nodiscard]] std::string text() const { return host + ":" + std::to_string(port); }
};

// Parses "host:port", port 1 to 65535. Throws InvalidArgument; `name` says where the text is from.
HostPort parse_host_port(std::string_view text, std::string_view name);

// Throws InvalidArgument when `host` is no dotted IPv4 address.
sockaddr_in ipv4_address(std::string const& host, std::uint16_t port);
std::string text_of(sockaddr_in const& address);

// Where `server` may be found. A store listens on loopback by default, while launchers hand out
// the name of the host: so when the name is one of this machine, loopback comes last in the list. Empty when
// the name does not resolve (yet).
std::vector<sockaddr_in> candidate_addresses(HostPort const& server);

// poll() that goes on after a signal. False when the deadline passes first.
bool poll_until(std::span<pollfd> fds, Deadline const& deadline);
bool wait_for(int fd, short events, Deadline const& deadline);

// An eventfd that wakes a thread out of poll().
class Wakeup {
 public:
  Wakeup();
  void signal() noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
};

}  // namespace switchyard
