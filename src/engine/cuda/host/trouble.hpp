// What a kernel reported, as an error.
#pragma once

#include "engine/cuda/host/mailbox.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cuda {

char const* name_of(Phase phase) noexcept;

// `rank`: this one. Not for TroubleKind::mismatch, whose cause the ranks tell one another first.
Error error_of(Trouble const& trouble, int rank, std::int64_t timeout_ms);

}  // namespace switchyard::cuda
