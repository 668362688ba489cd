#include "oracle/compare.hpp"

#include <algorithm>
#include <cstring>

namespace switchyard::oracle {

void throw_mismatch(Place const& place, std::string const& expected, std::string const& seen) {
  std::string text = fmt::format("{} on rank {}", place.what, place.rank);
  if (place.row >= 0) text += fmt::format(", row {}", place.row);
  if (place.from.rank >= 0) text += fmt::format(", source {}", place.from.rank);
  if (place.from.token >= 0) text += fmt::format(", token {}", place.from.token);
  if (place.channel >= 0) text += fmt::format(", channel {}", place.channel);
  throw Mismatch(fmt::format("{}: expected {}, seen {} (seed {})", text, expected, seen, place.seed));
}

void expect_bytes(Place place, std::span<std::byte const> expected, std::byte const* seen, std::size_t width) {
  if (expected.empty() || std::memcmp(expected.data(), seen, expected.size()) == 0) return;
  auto const at = std::mismatch(expected.begin(), expected.end(), seen).first - expected.begin();
  auto const channel = static_cast<std::size_t>(at) / width;
  place.channel = static_cast<std::int64_t>(channel);
  auto const hex = [&](std::byte const* data) {
    std::uint64_t value = 0;
    std::memcpy(&value, data + channel * width, width);
    return fmt::format("{:#0{}x}", value, 2 + 2 * width);
  };
  throw_mismatch(place, hex(expected.data()), hex(seen));
}

void expect_shape(Place const& place, Tensor const& seen, DType dtype, std::initializer_list<std::int64_t> shape) {
  expect_shape(place, seen, ConstTensorView{nullptr, dtype, shape});
}

void expect_shape(Place const& place, Tensor const& seen, ConstTensorView const& expected) {
  auto const text = [](ConstTensorView const& view) {
    auto const dims = static_cast<std::size_t>(view.ndim);
    return fmt::format("{} {} with strides {}", name_of(view.dtype), std::span(view.shape).first(dims),
                       std::span(view.strides).first(dims));
  };
  ConstTensorView const view = seen;
  bool same = view.dtype == expected.dtype && view.ndim == expected.ndim;
  for (int dim = 0; same && dim < expected.ndim; ++dim) {
    same = view.size(dim) == expected.size(dim);
    if (expected.numel() > 0) same = same && view.stride(dim) == expected.stride(dim);
  }
  if (!same) throw_mismatch(place, text(expected), seen.given() ? text(view) : "nothing");
}

}  // namespace switchyard::oracle
