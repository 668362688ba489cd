// Comparing what arrived with what must have. The first difference is thrown as a Mismatch.
#pragma once

#include <fmt/ranges.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "oracle/job.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::oracle {

class Mismatch : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Where a value is. Negative: it is not of a row, of a token, or of one channel.
struct Place {
  char const* what = "";
  int rank = -1;
  std::uint64_t seed = 0;
  std::int64_t row = -1;
  TokenKey from{-1, -1};
  std::int64_t channel = -1;
};

[[noreturn]] void throw_mismatch(Place const& place, std::string const& expected, std::string const& seen);

template <typename T>
void expect_equal(Place const& place, T const& expected, std::type_identity_t<T> const& seen) {
  if (!(expected == seen)) throw_mismatch(place, fmt::format("{}", expected), fmt::format("{}", seen));
}

// Bitwise, so that NaN equals itself and -0 differs from +0. `width` bytes make a channel.
void expect_bytes(Place place, std::span<std::byte const> expected, std::byte const* seen, std::size_t width);

template <typename T>
void expect_values(Place const& place, std::vector<T> const& expected, T const* seen) {
  expect_bytes(place, std::as_bytes(std::span(expected)), reinterpret_cast<std::byte const*>(seen), sizeof(T));
}

// A contiguous tensor, or one of these strides.
void expect_shape(Place const& place, Tensor const& seen, DType dtype, std::initializer_list<std::int64_t> shape);
void expect_shape(Place const& place, Tensor const& seen, ConstTensorView const& expected);

// What `check` found.
template <typename Check>
std::optional<std::string> mismatch_of(Check&& check) {
  try {
    std::forward<Check>(check)();
    return std::nullopt;
  } catch (Mismatch const& mismatch) {
    return mismatch.what();
  }
}

}  // namespace switchyard::oracle
