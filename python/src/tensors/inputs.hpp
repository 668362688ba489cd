// Tensors of any framework as views. The caller keeps the object alive, and its exports.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "switchyard/tensor.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// The capsules that objects returned from __dlpack__. A capsule may own a copy, which lives as long as the capsule.
using Exports = std::vector<nb::object>;

// None is a tensor that is not given. Throws TypeError for an object that is not a tensor, and InvalidArgument for
// a dtype, a device or a number of dimensions that Switchyard does not have; `name` is the argument's.
ConstTensorView input(char const* name, nb::handle object, Exports& exports);
// The same for a tensor that the call writes to.
TensorView output(char const* name, nb::handle object, Exports& exports);
bool is_of_jax(nb::handle object);

// The error for an argument of the wrong type, as `name: expected X, seen the type of object`.
nb::builtin_exception wrong_type(char const* name, char const* expected, nb::handle object);

}  // namespace switchyard::python
