// Random numbers that nobody can guess or repeat: for secrets, and for names that must not meet.
#pragma once

#include <cstddef>
#include <span>

namespace switchyard {

// Fills `bytes` from the kernel's generator; at most 256 of them, which come whole. Throws SystemError.
void fill_random(std::span<std::byte> bytes);

}  // namespace switchyard
