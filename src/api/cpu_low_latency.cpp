// The low-latency buffer of the CPU engine.
#include "api/low_latency_state.hpp"
#include "switchyard/error.hpp"

namespace switchyard::detail {

std::shared_ptr<LowLatencyState> make_cpu_low_latency(Communicator const& /*communicator*/,
                                                      LowLatencyOptions const& /*options*/) {
  throw Unsupported("engine cpu: low-latency mode");
}

}  // namespace switchyard::detail
