// What every back end checks of what it is asked for, so that all of them refuse the same in the same words.
#pragma once

#include <string_view>

#include "base/check.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport {

// The sizes that a write must fit into.
struct WriteBounds {
  std::size_t from_bytes = 0;  // of the region that it starts from; 0 without one
  std::size_t into_bytes = 0;  // of the region of the peer
  std::size_t most_bytes = 0;  // of one write
};

// Throws InvalidArgument, naming the field.
void check_write(Write const& write, WriteBounds const& bounds);

// The place of a Peer or PeerRegion in the list that its endpoint keeps. Throws InvalidArgument when it has none.
template <typename Number>
std::size_t place_of(std::string_view name, Number number, std::size_t count) {
  auto const place = static_cast<std::int32_t>(number);
  require(place >= 0 && static_cast<std::size_t>(place) < count, "{}: expected 0 to below {}, seen {}", name, count,
          place);
  return static_cast<std::size_t>(place);
}

}  // namespace switchyard::transport
