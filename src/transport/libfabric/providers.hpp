// What fi_getinfo finds that can do what a transport needs, and which of it is used.
#pragma once

#include <vector>

#include "transport/libfabric/libfabric.hpp"
#include "transport/libfabric/library.hpp"

namespace switchyard::transport::libfabric {

struct Candidate {
  fi_info const* info = nullptr;  // in one of the lists
  Nic nic;
};

// Keeps what fi_getinfo answered, since the candidates point into it.
struct Offers {
  std::vector<InfoPtr> lists;
  std::vector<Candidate> candidates;  // best first; of those that are not used, `why_not` says why

  [[nodiscard]] std::vector<Candidate const*> chosen() const;
};

// Throws InvalidArgument when the wish names what is not there.
Offers find_offers(Library const& library, Wish const& wish);

}  // namespace switchyard::transport::libfabric
