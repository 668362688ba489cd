#include "transport/libfabric/failures.hpp"

#include <rdma/fi_errno.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace switchyard::transport::libfabric {

bool means_lost(int error) noexcept {
  // Nobody here cancels: what is cancelled was waiting for a connection that has gone.
  constexpr std::array losses{ECANCELED, ECONNRESET,   ECONNABORTED, ECONNREFUSED, ENOTCONN, ESHUTDOWN,
                              EPIPE,     EHOSTUNREACH, EHOSTDOWN,    ENETUNREACH,  ENETDOWN, ETIMEDOUT};
  return std::ranges::find(losses, error) != losses.end();
}

}  // namespace switchyard::transport::libfabric
