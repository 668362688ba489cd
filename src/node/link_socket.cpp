#include "node/link_socket.hpp"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "base/check.hpp"

namespace switchyard {

namespace {

UniqueFd unix_socket(int type) {
  return UniqueFd(check_call(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
}

ucred credentials_of(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  check_call(::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length), "SO_PEERCRED");
  return credentials;
}

UniqueFd bound_socket(int type, std::string const& name) {
  UniqueFd socket = unix_socket(type);
  AbstractAddress const address(name);
  check_call(::bind(socket.get(), address.plain(), address.length), "bind a Unix socket");
  return socket;
}

}  // namespace

AbstractAddress::AbstractAddress(std::string const& name) {
  require(name.size() + 1 < sizeof address.sun_path, "socket name too long: {}", name);
  address.sun_family = AF_UNIX;
  // A first byte of zero makes the name abstract. The rest is the name, without a terminator.
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

UniqueFd datagram_abstract(std::string const& name) {
  return bound_socket(SOCK_DGRAM, name);
}

UniqueFd listen_abstract(std::string const& name) {
  UniqueFd socket = bound_socket(SOCK_STREAM, name);
  check_call(::listen(socket.get(), SOMAXCONN), "listen on a Unix socket");
  return socket;
}

ConnectOutcome connect_abstract(std::string const& name, UniqueFd& socket) {
  socket = unix_socket(SOCK_STREAM);
  AbstractAddress const address(name);
  if (::connect(socket.get(), address.plain(), address.length) == 0) return ConnectOutcome::connected;
  if (errno == EAGAIN || errno == EINTR) return ConnectOutcome::busy;
  if (errno == ECONNREFUSED) return ConnectOutcome::gone;
  throw_errno("connect a Unix socket");
}

bool is_from_our_user(int socket) {
  uid_t const uid = credentials_of(socket).uid;
  return uid == ::geteuid() || uid == 0;
}

UniqueFd watch_process_of(int socket) noexcept {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return {};
  // The pid is 0 when the process is in another pid namespace.
  if (credentials.pid <= 0 || credentials.pid == ::getpid()) return {};
  // The call is made by its number, because not every C library that we build with has a wrapper. Its descriptor is
  // always close-on-exec.
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, credentials.pid, 0)));
}

}  // namespace switchyard
