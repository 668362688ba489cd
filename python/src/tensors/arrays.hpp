// Arrays of NumPy that own numbers of C++.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace switchyard::python {

namespace nb = nanobind;

template <typename T>
nb::ndarray<T, nb::numpy> array_of(std::vector<T> values, std::initializer_list<std::size_t> shape) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = owned->data();
  nb::capsule const owner(owned.get(), [](void* vector) noexcept { delete static_cast<std::vector<T>*>(vector); });
  static_cast<void>(owned.release());  // the capsule's from here on
  return nb::ndarray<T, nb::numpy>(data, shape, owner);
}

}  // namespace switchyard::python
