// Tensors of the heap as Python objects.
#pragma once

#include <nanobind/nanobind.h>

#include "dlpack.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// How a result shows itself.
struct Looks {
  bool as_bool = false;  // bytes that are 0 or 1
};

struct HeapTensor {
  Tensor tensor;
  Looks looks;
};

// Makes tensors of the kind that the caller handed in. With a C exchange table that is at once a tensor of the
// framework; otherwise a HeapTensor, which switchyard/_frameworks.py turns into one.
class Exporter {
 public:
  Exporter() = default;
  explicit Exporter(nb::handle like);
  // None for a tensor that is not given.
  [[nodiscard]] nb::object operator()(Tensor const& tensor, Looks looks = {}) const;

 private:
  dlpack::ExchangeApi const* api_ = nullptr;
};

void bind_heap_tensor(nb::module_& module);

}  // namespace switchyard::python
