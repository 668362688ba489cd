// Peers that faulty endpoints drop on purpose: for tests of a whole job, which make no endpoint themselves.
#pragma once

#include <cstdint>
#include <vector>

#include "transport/faulty/outgoing.hpp"

namespace switchyard::transport::faulty {

struct Drop {
  int endpoint = 0;  // number of who drops
  int peer = 0;      // number of who is dropped
  Loss loss = Loss::failed;
};

// While it lives, the faulty endpoints of this process with that number lose the peer, at their next poll and for
// good. One whose writes fail is also reported as lost, as by a provider that has a connection to it. Any thread
// may make one.
class DropOnPurpose {
 public:
  explicit DropOnPurpose(std::vector<Drop> drops);
  ~DropOnPurpose();
  DropOnPurpose(DropOnPurpose const&) = delete;
  DropOnPurpose& operator=(DropOnPurpose const&) = delete;
};

// Changes with each drop that is ordered; 0: there is none.
[[nodiscard]] std::uint64_t drops_ordered() noexcept;
// Those of an endpoint.
[[nodiscard]] std::vector<Drop> drops_of(int endpoint);

}  // namespace switchyard::transport::faulty
