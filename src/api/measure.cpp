#include "switchyard/measure.hpp"

#include "call/low_latency_engine.hpp"
#include "call/throughput_engine.hpp"

namespace switchyard {

void gate(Buffer& buffer) {
  buffer.state()->gate();
}

std::vector<PhaseTime> phases(Buffer const& buffer) {
  return buffer.state()->phases();
}

WireCount wire_count(Buffer const& buffer) {
  return buffer.state()->wire_count();
}

WireCount wire_count(LowLatencyBuffer const& buffer) {
  return buffer.state()->wire_count();
}

void count_calls(Buffer& buffer, bool on) {
  buffer.state()->count_calls(on);
}

CallCounts call_counts(Buffer const& buffer) {
  return buffer.state()->call_counts();
}

void gate(LowLatencyBuffer& buffer, std::uintptr_t cuda_stream) {
  buffer.state()->gate(cuda_stream);
}

}  // namespace switchyard
