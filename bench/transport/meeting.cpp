#include "meeting.hpp"

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "base/deadline.hpp"
#include "bootstrap/address.hpp"
#include "bootstrap/socket.hpp"

namespace transport_rate {

namespace {

constexpr std::chrono::seconds time_to_come{20};

switchyard::InetAddress address_of(std::string const& text, char const* option) {
  auto const where = switchyard::parse_host_port(text, option);
  std::vector<switchyard::InetAddress> const found = switchyard::resolve(where);
  if (found.empty()) throw std::runtime_error("no address for " + where.text());
  return found.front();
}

switchyard::UniqueFd tcp_socket(switchyard::InetAddress const& address) {
  switchyard::UniqueFd made(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) throw std::runtime_error("socket failed");
  return made;
}

switchyard::UniqueFd connect_one(switchyard::InetAddress const& address) {
  switchyard::Deadline const deadline(time_to_come);
  for (;;) {
    switchyard::UniqueFd made = tcp_socket(address);
    if (connect(made.get(), address.get(), address.length()) == 0) return made;
    if (deadline.expired()) throw std::runtime_error("nobody listens at " + address.text());
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
}

}  // namespace

Both socket_pairs(int links) {
  Both both;
  for (int i = 0; i < links; ++i) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      throw std::runtime_error("socketpair failed");
    both.first.emplace_back(ends[0]);
    both.second.emplace_back(ends[1]);
  }
  return both;
}

Sockets accept_links(std::string const& listen_at, int links) {
  auto const address = address_of(listen_at, "--listen");
  switchyard::UniqueFd const listener = tcp_socket(address);
  int const yes = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener.get(), address.get(), address.length()) != 0 || listen(listener.get(), links) != 0)
    throw std::runtime_error("cannot listen at " + listen_at);
  Sockets accepted;
  switchyard::Deadline const deadline(time_to_come);
  while (static_cast<int>(accepted.size()) < links) {
    if (!switchyard::wait_for(listener.get(), POLLIN, deadline))
      throw std::runtime_error("the other side did not connect to " + listen_at);
    accepted.emplace_back(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted.back()) throw std::runtime_error("accept failed at " + listen_at);
  }
  return accepted;
}

Sockets connect_links(std::string const& where, int links) {
  auto const address = address_of(where, "--connect");
  Sockets connected;
  for (int i = 0; i < links; ++i) connected.push_back(connect_one(address));
  return connected;
}

}  // namespace transport_rate
