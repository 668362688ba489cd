// What the errors of libfabric mean.
#pragma once

namespace switchyard::transport::libfabric {

// Whether an error (positive) of a write says that the peer cannot be reached any more, rather than that the write
// was wrong.
bool means_lost(int error) noexcept;

}  // namespace switchyard::transport::libfabric
