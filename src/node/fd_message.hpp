// Bytes over a Unix socket, with a descriptor along with the first of them (SCM_RIGHTS).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

#include "base/unique_fd.hpp"

namespace switchyard {

// As send() and recv(): the number of bytes, or -1 with errno set. fd -1: no descriptor goes along.
ssize_t send_with_fd(int socket, std::span<std::byte const> bytes, int fd) noexcept;
// Closes every descriptor that came along but one, which it leaves in `fd`; `fd` keeps its value when none came. -1
// with EMFILE: this process may not have the descriptor that came, and the bytes beside it are gone.
ssize_t receive_with_fd(int socket, std::span<std::byte> bytes, UniqueFd& fd) noexcept;

}  // namespace switchyard
