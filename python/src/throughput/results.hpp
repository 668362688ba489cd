// Tensors of the heap as Python objects.
#pragma once

#include <nanobind/nanobind.h>

#include "switchyard/buffer.hpp"
#include "switchyard/tensor.hpp"
#include "tensors/dlpack.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// How a result shows itself.
struct Looks {
  bool as_bool = false;  // bytes that are 0 or 1
};

struct HeapTensor {
  Tensor tensor;
  Looks looks;
  int gpu = 0;
};

// Of a buffer's results; 0 on the CPU engine.
template <typename AnyBuffer>
int gpu_of(AnyBuffer const& buffer) {
  return buffer.engine() == EngineKind::cuda ? buffer.options().device : 0;
}

// Buffers are made in another thread, and -1 means the current GPU of the caller's.
template <typename Options>
Options on_this_gpu(Options options) {
  if (options.device < 0 && options.engine != EngineKind::cpu) options.device = current_gpu();
  return options;
}

// Makes tensors of the kind that the caller handed in. With a C exchange table that is at once a tensor of the
// framework; otherwise a HeapTensor, which switchyard/_frameworks.py turns into one.
class Exporter {
 public:
  Exporter() = default;
  // `gpu`: the index of the one that tensors in GPU memory are on.
  explicit Exporter(nb::handle like, int gpu = 0);
  // None for a tensor that is not given.
  [[nodiscard]] nb::object operator()(Tensor const& tensor, Looks looks = {}) const;

 private:
  dlpack::ExchangeApi const* api_ = nullptr;
  int gpu_ = 0;
};

void bind_heap_tensor(nb::module_& module);

}  // namespace switchyard::python
