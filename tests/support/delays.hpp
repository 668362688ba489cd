// Holds ranks up at their signals for as long as it lives; see control/signal_delay.hpp.
#pragma once

#include <cstdint>

#include "control/signal_delay.hpp"

namespace switchyard::test {

class Delays {
 public:
  Delays(std::uint64_t seed, std::uint32_t max_us) { set_signal_delays(seed, max_us); }
  ~Delays() { set_signal_delays(0, 0); }
  Delays(Delays const&) = delete;
  Delays& operator=(Delays const&) = delete;
};

}  // namespace switchyard::test
