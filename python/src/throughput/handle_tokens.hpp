// Handles in the guise of tensors: operators of torch.library take and return tensors only.
#pragma once

#include <nanobind/nanobind.h>

namespace switchyard::python {

void bind_handle_tokens(nanobind::module_& module);

}  // namespace switchyard::python
