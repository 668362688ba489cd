// How much memory a process of this machine can have.
#pragma once

#include <cstddef>

namespace switchyard {

// Bytes of memory that the machine has.
std::size_t machine_memory() noexcept;

// Bytes that this process may still map: by its limit (RLIMIT_AS, `ulimit -v`), or by what there are addresses for.
// Control groups do not count here: they limit what is written to, and a heap takes only that.
std::size_t free_address_space() noexcept;

}  // namespace switchyard
