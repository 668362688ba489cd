// Tensors of any framework as views. The caller keeps the object alive, and what it handed out.
#pragma once

#include <nanobind/nanobind.h>

#include <initializer_list>
#include <vector>

#include "switchyard/tensor.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// What objects handed out by __dlpack__: it may be a copy, which lives as long as this.
using Exports = std::vector<nb::object>;

// None: not given. Throws TypeError for what is no tensor, InvalidArgument for a dtype, a device or a number of
// dimensions that Switchyard has no word for; `name` is the argument's.
ConstTensorView input(char const* name, nb::handle object, Exports& exports);
// The same for what is written to.
TensorView output(char const* name, nb::handle object, Exports& exports);
bool is_of_jax(nb::handle object);

// What a call that goes on after it has returned keeps alive.
std::vector<nb::object> kept_alive(std::initializer_list<nb::handle> inputs, Exports const& exports);

}  // namespace switchyard::python
