// The GPU of a buffer, and the waits that JAX needs there.
#pragma once

#include "switchyard/buffer.hpp"
#include "switchyard/low_latency.hpp"
#include "tensors/dtypes.hpp"
#include "tensors/exchange.hpp"
#include "tensors/inputs.hpp"
#include "waiting.hpp"

namespace switchyard::python {

template <typename AnyBuffer>
bool on_gpu(AnyBuffer const& buffer) {
  return buffer.engine() == EngineKind::cuda;
}

// The index of the GPU that results of a buffer lie on; 0 on the CPU engine.
template <typename AnyBuffer>
int gpu_of(AnyBuffer const& buffer) {
  return on_gpu(buffer) ? buffer.options().device : 0;
}

// Does the tensor lie where the buffer's results do?
template <typename AnyBuffer>
bool lies_with(AnyBuffer const& buffer, dlpack::Device device) {
  if (!on_gpu(buffer)) return device_of(device.type) == Device::cpu;
  return device_of(device.type) == Device::cuda && device.id == gpu_of(buffer);
}

// Are these the x and the ids of a call of this buffer, by their dimensions and the device of x? Otherwise it may
// be a call of another buffer, or a wrong one.
template <typename AnyBuffer>
bool sizes_fit(AnyBuffer const& buffer, dlpack::Tensor const& x, dlpack::Tensor const& ids) {
  auto const& made_for = buffer.options();
  return x.ndim == 2 && x.shape[1] == made_for.hidden && ids.ndim == 2 && ids.shape[1] == made_for.top_k &&
         lies_with(buffer, x.device);
}

// Device -1 is the current GPU of the calling thread. Buffers are made in another thread, so it is looked up here.
template <typename Options>
Options on_this_gpu(Options options) {
  if (options.device < 0 && options.engine != EngineKind::cpu) options.device = current_gpu();
  return options;
}

// JAX has streams of its own and tells nobody which. JAX's reads of a result, and its reuse of an input's memory,
// come after a call on a GPU only if the call is over when it returns.
template <typename AnyBuffer>
bool ends_on_return(AnyBuffer const& buffer, nb::handle like) {
  return on_gpu(buffer) && exchange_api_of(like) == nullptr && is_of_jax(like);
}

// Waits for a call if its tensors, such as `like`, are of JAX. Throws the errors that the call has found by then.
inline void settle(Buffer& buffer, nb::handle like) {
  if (ends_on_return(buffer, like)) run_here([&] { buffer.synchronize(); });
}

// Throws no error of the call: its peers would wait in vain for a corrected one.
inline void settle(LowLatencyBuffer& buffer, nb::handle like, std::uintptr_t cuda_stream) {
  if (ends_on_return(buffer, like)) run_here([&] { wait_for_stream(buffer.options().device, cuda_stream); });
}

}  // namespace switchyard::python
