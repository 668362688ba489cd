#include <utility>

#include "switchyard/error.hpp"
#include "transport/libfabric/libfabric.hpp"
#include "transport/libfabric/providers.hpp"

namespace switchyard::transport::libfabric {

Report report(Wish const& wish) {
  Report result;
  try {
    result.library = library().description();
  } catch (Unsupported const& error) {
    result.why_none = error.what();
    return result;
  }
  for (Candidate& candidate : find_offers(library(), wish).candidates)
    result.nics.push_back(std::move(candidate.nic));
  if (result.nics.empty()) result.why_none = "no provider offers reliable datagrams with remote writes";
  return result;
}

}  // namespace switchyard::transport::libfabric
