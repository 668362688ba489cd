// Endpoints of one process, for ranks that are threads, and for tests: no network, and no progress of its own
// either.
//
// The bytes of a write are copied in the target's poll(), by the target's thread. So a source that reuses memory
// before `sent` spoils the write, and TSan reports it; a target that does not poll receives nothing, as with tcp;
// and only its own thread ever writes into a rank's regions, so a region that has gone is never written to.
#pragma once

#include <memory>

#include "transport/transport.hpp"

namespace switchyard::transport::loopback {

struct Options {
  std::size_t max_writes = 256;  // posted, with no `sent` or `failed` polled yet
  std::size_t max_write_bytes = std::size_t{1} << 30U;
  std::size_t region_bytes_limit = std::size_t{1} << 30U;
};

std::unique_ptr<Endpoint> make_endpoint(Options const& options);

}  // namespace switchyard::transport::loopback
