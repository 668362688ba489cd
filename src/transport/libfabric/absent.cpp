// In place of everything else here, where libfabric's headers were not found.
#include "switchyard/error.hpp"
#include "transport/libfabric/libfabric.hpp"

namespace switchyard::transport::libfabric {

namespace {

constexpr char const* why =
    "libfabric: this build has no transport over it; build with libfabric's headers (Debian: libfabric-dev) and "
    "SWITCHYARD_FABRIC=ON";

}  // namespace

Wish wish_of_environment() {
  return {};
}

Report report(Wish const& /*wish*/) {
  Report result;
  result.why_none = why;
  return result;
}

std::unique_ptr<Endpoint> open_endpoint(EndpointOptions const& /*options*/) {
  throw Unsupported(why);
}

}  // namespace switchyard::transport::libfabric
