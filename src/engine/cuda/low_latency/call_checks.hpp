// What both buffers of the low-latency mode, on one node and over several, check of their calls and hand out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "call/low_latency.hpp"
#include "engine/cuda/host/gpu_checks.hpp"
#include "layout/slots.hpp"

namespace switchyard::cuda {

// As check_low_latency_dispatch() and check_low_latency_combine(); and tensors must lie on the buffer's GPU, which
// info.options.device is. They throw InvalidArgument.
void check_gpu_call(LowLatencyDispatchArgs const& args, LowLatencyInfo const& info, SmShare const& sms);
void check_gpu_call(LowLatencyCombineArgs const& args, LowLatencyInfo const& info, SmShare const& sms);

// The combine's dispatch must be one of the latest, and nothing of it still to be received. `outputs` is where the
// bay has them, `dispatches` how many there were since the last reset. Throws InvalidArgument.
void check_turn(LowLatencyCombineArgs const& args, LowLatencyInfo const& info, std::uint64_t dispatches,
                void const* outputs);

// What is said of an id that was out of range, which the call that had it did not see.
[[noreturn]] void throw_bad_slot(std::int64_t token, std::int64_t slot, SlotSizes const& sizes);

// A hook that does nothing when it is called again. Until it is called it keeps the buffer and the result alive.
template <typename Receive>
ReceiveHook once(std::shared_ptr<detail::LowLatencyEngine> self, Receive receive) {
  auto todo = std::make_shared<std::optional<Receive>>(std::move(receive));
  return [self = std::move(self), todo](std::uintptr_t stream) {
    if (!*todo) return;
    (**todo)(stream);  // if this throws, the hook may be called again
    todo->reset();
  };
}

}  // namespace switchyard::cuda
