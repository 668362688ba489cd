// How the two ends of each link find each other: by a stream socket a link, over which their addresses go.
#pragma once

#include <string>
#include <vector>

#include "base/unique_fd.hpp"

namespace transport_rate {

using Sockets = std::vector<switchyard::UniqueFd>;

// Both ends of each link, for children of this process.
struct Both {
  Sockets first;
  Sockets second;
};
Both socket_pairs(int links);

// Waits at host:port for the other side, which connects as often within 20 s.
Sockets accept_links(std::string const& listen, int links);
// To who waits there, or will within 20 s.
Sockets connect_links(std::string const& where, int links);

}  // namespace transport_rate
