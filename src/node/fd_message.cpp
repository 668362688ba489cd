#include "node/fd_message.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

namespace switchyard {

namespace {

// There is room for more descriptors than we ever send, so that those of a faulty peer are received, and closed.
constexpr std::size_t control_bytes = CMSG_SPACE(4 * sizeof(int));

// Writes the control message that carries `fd` into `message`, whose control buffer is all zero.
void attach(msghdr& message, int fd) noexcept {
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
}

void take_descriptors(cmsghdr const* header, UniqueFd& fd) noexcept {
  std::size_t const count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t i = 0; i < count; ++i) {
    int received = -1;
    std::memcpy(&received, CMSG_DATA(header) + i * sizeof received, sizeof received);
    fd = UniqueFd(received);
  }
}

}  // namespace

ssize_t send_with_fd(int socket, std::span<std::byte const> bytes, int fd) noexcept {
  return send_with_fd_to({}, socket, bytes, fd);
}

ssize_t send_with_fd_to(SocketAddress to, int socket, std::span<std::byte const> bytes, int fd) noexcept {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  // sendmsg() only reads through iov_base, although its type allows more.
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  // sendmsg() only reads through these pointers, too.
  message.msg_name = const_cast<sockaddr*>(to.address);
  message.msg_namelen = to.length;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    attach(message, fd);
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t receive_with_fd(int socket, std::span<std::byte> bytes, UniqueFd& fd) noexcept {
  alignas(cmsghdr) char control[control_bytes] = {};
  iovec part{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t const got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header))
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) take_descriptors(header, fd);
  if ((message.msg_flags & MSG_CTRUNC) == 0 || fd) return got;
  errno = EMFILE;  // the kernel says no more than that it dropped the descriptor, which is why it does
  return -1;
}

}  // namespace switchyard
