// Checks what a dispatch and a combine delivered against what the inputs say.
#pragma once

#include <cstdint>

#include "exchange.hpp"
#include "routing.hpp"

namespace mpi_alltoall {

// Throw std::runtime_error, naming the first wrong place.
void check_dispatch(Exchange const& exchange, Options const& options, World const& world);
// The experts handed back what they received.
void check_combine(std::uint16_t const* out, Inputs const& inputs, Options const& options);

}  // namespace mpi_alltoall
