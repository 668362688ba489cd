// Sends and receives bytes over a Unix socket, and a descriptor with the first of them (SCM_RIGHTS).
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <span>

#include "base/unique_fd.hpp"

namespace switchyard {

// Both return what send() and recv() do: the number of bytes, or -1 with errno set. fd -1: no descriptor goes
// along.
ssize_t send_with_fd(int socket, std::span<std::byte const> bytes, int fd) noexcept;
// The same as a datagram to that address.
struct SocketAddress {
  sockaddr const* address = nullptr;
  socklen_t length = 0;
};
ssize_t send_with_fd_to(SocketAddress to, int socket, std::span<std::byte const> bytes, int fd) noexcept;
// Closes all descriptors that came along but one, which it leaves in `fd`. When none came, `fd` keeps its value. It
// returns -1 with EMFILE when this process may not have the descriptor that came; the bytes that came with it are
// lost.
ssize_t receive_with_fd(int socket, std::span<std::byte> bytes, UniqueFd& fd) noexcept;

}  // namespace switchyard
