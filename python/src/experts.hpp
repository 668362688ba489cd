// Plans of experts: plan_experts for arrays of NumPy.
#pragma once

#include <nanobind/nanobind.h>

namespace switchyard::python {

void bind_experts(nanobind::module_& module);

}  // namespace switchyard::python
