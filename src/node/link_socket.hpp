// Unix sockets in the abstract namespace.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <optional>
#include <string>

#include "base/unique_fd.hpp"

namespace switchyard {

struct AbstractAddress {
  sockaddr_un address{};
  socklen_t length = 0;

  // Throws InvalidArgument when the name is too long.
  explicit AbstractAddress(std::string const& name);
  [[nodiscard]] sockaddr const* plain() const noexcept { return reinterpret_cast<sockaddr const*>(&address); }
};

// All sockets are non-blocking and closed on exec.
UniqueFd listen_abstract(std::string const& name);

enum class ConnectOutcome : unsigned char { connected, busy, gone };
// busy: the queue of the listener is full, and the caller should try again. gone: nobody listens under this name,
// or nobody does any more.
ConnectOutcome connect_abstract(std::string const& name, UniqueFd& socket);

// A socket for datagrams, to this name and from it.
UniqueFd datagram_abstract(std::string const& name);

// Whether the process at the other end runs as our user, or as root.
bool is_from_our_user(int socket);
// Returns a descriptor that becomes readable when the process at the other end ends. It is empty where the kernel
// offers none, or where that process is this one.
UniqueFd watch_process_of(int socket) noexcept;

}  // namespace switchyard
