#include "engine/cpu/simd/target.hpp"

#include "engine/cpu/simd/targets.hpp"
// After it.
#include <hwy/targets.h>

namespace switchyard::cpu {

std::string simd_target() {
  // Better targets have lower bits.
  auto const usable = static_cast<std::int64_t>(hwy::SupportedTargets() & HWY_TARGETS);
  return hwy::TargetName(usable & -usable);
}

}  // namespace switchyard::cpu
