// What a kernel reported, as an error.
#pragma once

#include "engine/cuda/host/mailbox.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cuda {

char const* name_of(WaitPoint point) noexcept;

// `rank` is this rank. This is not for TroubleKind::mismatch, whose error depends on the mode (MismatchPolicy).
Error error_of(Trouble const& trouble, int rank, std::int64_t timeout_ms);

}  // namespace switchyard::cuda
