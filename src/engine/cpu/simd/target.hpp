// Which of the instruction sets that the kernels are built for this machine runs.
#pragma once

#include <string>

namespace switchyard::cpu {

std::string simd_target();

}  // namespace switchyard::cpu
