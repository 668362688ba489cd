#include "bootstrap/socket.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/number.hpp"

namespace switchyard {

HostPort parse_host_port(std::string_view text, std::string_view name) {
  auto const colon = text.rfind(':');
  std::string_view const host = text.substr(0, colon);
  std::string_view const port = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  auto const number = parse_number<std::uint16_t>(port);
  require(number.value_or(0) > 0 && !host.empty() && host.find_first_of(": ") == std::string_view::npos,
          "{}: expected host:port with a port from 1 to 65535, seen '{}'", name, text);
  return {std::string(host), *number};
}

sockaddr_in ipv4_address(std::string const& host, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  require(::inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1, "expected an IPv4 address, seen '{}'", host);
  return address;
}

std::string text_of(sockaddr_in const& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
  return fmt::format("{}:{}", text.data(), ntohs(address.sin_port));
}

namespace {

// Only an address of this machine can be bound.
bool is_local(sockaddr_in address) {
  UniqueFd const probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  address.sin_port = 0;
  return ::bind(probe.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) == 0;
}

}  // namespace

std::vector<sockaddr_in> candidate_addresses(HostPort const& server) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &found) != 0) return {};
  std::vector<sockaddr_in> addresses;
  for (addrinfo const* each = found; each != nullptr; each = each->ai_next)
    addresses.push_back(*reinterpret_cast<sockaddr_in const*>(each->ai_addr));
  ::freeaddrinfo(found);
  sockaddr_in const loopback = ipv4_address("127.0.0.1", server.port);
  bool const tries_it = std::any_of(addresses.begin(), addresses.end(), [&](sockaddr_in const& address) {
    return address.sin_addr.s_addr == loopback.sin_addr.s_addr;
  });
  if (!tries_it && std::any_of(addresses.begin(), addresses.end(), is_local)) addresses.push_back(loopback);
  return addresses;
}

bool poll_until(std::span<pollfd> fds, Deadline const& deadline) {
  for (;;) {
    auto const left = std::min<std::chrono::milliseconds::rep>(deadline.remaining().count(), 3'600'000);
    int const ready = ::poll(fds.data(), fds.size(), static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw_errno("poll");
    if (deadline.expired()) return false;
  }
}

bool wait_for(int fd, short events, Deadline const& deadline) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return poll_until({&entry, 1}, deadline);
}

Wakeup::Wakeup() : fd_(check_call(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {}

void Wakeup::signal() noexcept {
  std::uint64_t const one = 1;
  // Fails only when the counter is full, and then the reader is awake anyway.
  [[maybe_unused]] auto const written = ::write(fd_.get(), &one, sizeof one);
}

}  // namespace switchyard
