#include "call/views.hpp"

#include <cstdint>
#include <string>

#include "base/check.hpp"

namespace switchyard {

namespace {

std::string names_of(std::initializer_list<DType> dtypes) {
  std::string names;
  for (DType const dtype : dtypes) names += (names.empty() ? "" : " or ") + std::string(name_of(dtype));
  return names;
}

char const* name_of(Device device) {
  return device == Device::cpu ? "cpu" : "cuda";
}

}  // namespace

void check_dtype(std::string_view name, ConstTensorView const& view, std::initializer_list<DType> allowed) {
  for (DType const dtype : allowed) {
    if (view.dtype == dtype) return;
  }
  require(false, "{}: expected dtype {}, seen {}", name, names_of(allowed), name_of(view.dtype));
}

void check_shape(std::string_view name, ConstTensorView const& view, std::initializer_list<std::int64_t> expected,
                 Device device) {
  require(view.device == device, "{}: expected a tensor on device {}, seen {}", name, name_of(device),
          name_of(view.device));
  require(view.ndim == static_cast<int>(expected.size()), "{}: expected {} dimensions, seen {}", name,
          expected.size(), view.ndim);
  int dim = 0;
  for (std::int64_t const extent : expected) {
    std::int64_t const seen = view.size(dim);
    require(seen >= 0, "{}: dimension {}: expected 0 or more, seen {}", name, dim, seen);
    require(extent == any || seen == extent, "{}: dimension {}: expected {}, seen {}", name, dim, extent, seen);
    ++dim;
  }
  require(view.numel() == 0 || view.data != nullptr, "{}: expected a pointer for {} elements, seen null", name,
          view.numel());
}

void check_aligned(std::string_view name, ConstTensorView const& view) {
  auto const address = reinterpret_cast<std::uintptr_t>(view.data);
  require(address % size_of(view.dtype) == 0, "{}: expected an address aligned to {} bytes, seen {:#x}", name,
          size_of(view.dtype), address);
}

void check_rows(std::string_view name, ConstTensorView const& view) {
  int const last = view.ndim - 1;
  require(view.size(last) <= 1 || view.stride(last) == 1,
          "{}: expected adjacent elements in a row (stride 1), seen stride {}", name, view.stride(last));
  check_aligned(name, view);
}

void check_writable_rows(std::string_view name, ConstTensorView const& view) {
  check_rows(name, view);
  require(view.size(0) <= 1 || view.stride(0) >= view.size(1),
          "{}: expected rows that do not overlap (stride {} or more), seen {}", name, view.size(1), view.stride(0));
}

void check_workers(int num_workers) {
  require(num_workers >= 0 && num_workers <= 1024, "num_workers: expected 0..1024, seen {}", num_workers);
}

}  // namespace switchyard
