// Tensors of the heap as Python objects.
#pragma once

#include <nanobind/nanobind.h>

#include "switchyard/tensor.hpp"
#include "tensors/dlpack.hpp"

namespace switchyard::python {

namespace nb = nanobind;

struct Looks {
  bool as_bool = false;  // the bytes are 0 or 1, and are shown as bool
};

struct HeapTensor {
  Tensor tensor;
  Looks looks;
  int gpu = 0;
};

// Makes tensors of the caller's framework. If that has a C exchange table they are tensors of the framework at
// once; otherwise each is a HeapTensor, which switchyard/_frameworks.py turns into one.
class Exporter {
 public:
  Exporter() = default;
  // `like`: a tensor of the framework. `gpu`: the index of the GPU that tensors in GPU memory lie on.
  explicit Exporter(nb::handle like, int gpu = 0);
  // Returns None for a tensor that is not given.
  [[nodiscard]] nb::object operator()(Tensor const& tensor, Looks looks = {}) const;

 private:
  dlpack::ExchangeApi const* api_ = nullptr;
  int gpu_ = 0;
};

void bind_heap_tensor(nb::module_& module);

}  // namespace switchyard::python
