// What is said of an id that was out of range, which the call that had it did not see.
#pragma once

#include <cstdint>

#include "layout/slots.hpp"

namespace switchyard::cuda {

[[noreturn]] void throw_bad_slot(std::int64_t token, std::int64_t slot, SlotSizes const& sizes);

}  // namespace switchyard::cuda
