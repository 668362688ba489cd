// Views of the caller's memory, and tensors that own a block of the symmetric heap.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <utility>

#include "switchyard/dtype.hpp"

namespace switchyard {

inline constexpr int max_dims = 3;

// A strided view of up to three dimensions, which owns nothing. Strides are in elements. A view with data ==
// nullptr and no elements is a valid empty tensor; a default-constructed view stands for "not given".
template <typename Void>
struct BasicTensorView {
  Void* data = nullptr;
  DType dtype = DType::u8;
  Device device = Device::cpu;
  int ndim = 0;
  std::array<std::int64_t, max_dims> shape{};
  std::array<std::int64_t, max_dims> strides{};

  BasicTensorView() = default;
  // A contiguous row-major tensor of `type` at `at`.
  BasicTensorView(Void* at, DType type, std::initializer_list<std::int64_t> dims)
      : data(at), dtype(type), ndim(static_cast<int>(dims.size())) {
    int i = 0;
    for (std::int64_t extent : dims) {
      if (i < max_dims) shape[static_cast<std::size_t>(i)] = extent;
      ++i;
    }
    std::int64_t stride = 1;
    for (int d = ndim < max_dims ? ndim : max_dims; d-- > 0;) {
      strides[static_cast<std::size_t>(d)] = stride;
      stride *= shape[static_cast<std::size_t>(d)];
    }
  }
  // A mutable view converts to a read-only one.
  template <typename Other>
  requires(std::is_const_v<Void> && !std::is_const_v<Other>)
      // NOLINTNEXTLINE(google-explicit-constructor): the conversion loses nothing.
      BasicTensorView(BasicTensorView<Other> const& other)
      : data(other.data),
        dtype(other.dtype),
        device(other.device),
        ndim(other.ndim),
        shape(other.shape),
        strides(other.strides) {}

  [[nodiscard]] bool given() const noexcept { return ndim > 0; }
  [[nodiscard]] std::int64_t size(int dim) const noexcept { return shape[static_cast<std::size_t>(dim)]; }
  [[nodiscard]] std::int64_t stride(int dim) const noexcept { return strides[static_cast<std::size_t>(dim)]; }
  [[nodiscard]] std::int64_t numel() const noexcept {
    if (ndim == 0) return 0;
    std::int64_t n = 1;
    for (int d = 0; d < ndim; ++d) n *= size(d);
    return n;
  }
};

using TensorView = BasicTensorView<void>;
using ConstTensorView = BasicTensorView<void const>;

// A tensor in the symmetric heap; contiguous unless the call that makes it says otherwise. Copies share the block,
// and the last owner frees it. It may outlive its buffer.
class Tensor {
 public:
  Tensor() = default;
  Tensor(TensorView const& view, std::shared_ptr<void> owner) : view_(view), owner_(std::move(owner)) {}

  [[nodiscard]] TensorView view() const noexcept { return view_; }
  [[nodiscard]] bool given() const noexcept { return view_.given(); }
  [[nodiscard]] std::int64_t size(int dim) const noexcept { return view_.size(dim); }
  [[nodiscard]] DType dtype() const noexcept { return view_.dtype; }
  template <typename T>
  [[nodiscard]] T* data() const noexcept {
    return static_cast<T*>(view_.data);
  }
  // NOLINTNEXTLINE(google-explicit-constructor): a tensor is used wherever a view is.
  operator TensorView() const noexcept { return view_; }
  // NOLINTNEXTLINE(google-explicit-constructor)
  operator ConstTensorView() const noexcept { return view_; }
  [[nodiscard]] std::shared_ptr<void> const& owner() const noexcept { return owner_; }

 private:
  TensorView view_;
  std::shared_ptr<void> owner_;
};

}  // namespace switchyard
