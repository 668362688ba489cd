// Unix stream sockets in the abstract namespace.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/unique_fd.hpp"

namespace switchyard {

// All sockets are non-blocking and closed on exec.
UniqueFd listen_abstract(std::string const& name);

enum class ConnectOutcome : unsigned char { connected, busy, gone };
// busy: its queue is full, try again; gone: nobody listens under this name (any more).
ConnectOutcome connect_abstract(std::string const& name, UniqueFd& socket);

// The process at the other end is of our user, or root's.
bool is_from_our_user(int socket);
// A descriptor that becomes readable when the process at the other end ends. None where the kernel offers no
// such thing, or where that process is this one.
UniqueFd watch_process_of(int socket) noexcept;

}  // namespace switchyard
