// Whether the results are right. Both throw, saying where they are not.
#pragma once

#include "inputs.hpp"
#include "kernels.hpp"
#include "switchyard/switchyard.hpp"

namespace example {

// Every element of every row received, where each row came from, and that nothing follows them.
void check_dispatched(Job const& job, switchyard::Dispatched const& routed, int run);
// One element of every tile.
void check_product(Job const& job, Product const& product, int run);

}  // namespace example
