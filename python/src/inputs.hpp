// Tensors of any framework as views. The caller keeps the object alive.
#pragma once

#include <nanobind/nanobind.h>

#include "switchyard/tensor.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// None: not given. Throws TypeError for what is no tensor, InvalidArgument for a dtype, a device or a number of
// dimensions that Switchyard has no word for; `name` is the argument's.
ConstTensorView input(char const* name, nb::handle object);
// The same for what is written to.
TensorView output(char const* name, nb::handle object);
bool is_of_jax(nb::handle object);

}  // namespace switchyard::python
