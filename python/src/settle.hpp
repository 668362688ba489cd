// JAX has streams of its own, and says which to nobody. So what it reads or frees after a call on a GPU can come
// after the call only if the call is over when it returns.
#pragma once

#include "switchyard/low_latency.hpp"
#include "tensors/exchange.hpp"
#include "tensors/inputs.hpp"
#include "throughput/buffer.hpp"

namespace switchyard::python {

template <typename AnyBuffer>
bool ends_on_return(AnyBuffer const& buffer, nb::handle like) {
  return buffer.engine() == EngineKind::cuda && exchange_api_of(like) == nullptr && is_of_jax(like);
}

// `like`: the framework's tensor. Throws what the call has found by then.
inline void settle(Buffer& buffer, nb::handle like) {
  if (ends_on_return(buffer, like)) run_here([&] { buffer.synchronize(); });
}

// Throws nothing of the call: its peers would wait for no corrected one.
inline void settle(LowLatencyBuffer& buffer, nb::handle like, std::uintptr_t cuda_stream) {
  if (ends_on_return(buffer, like)) run_here([&] { wait_for_stream(buffer.options().device, cuda_stream); });
}

}  // namespace switchyard::python
