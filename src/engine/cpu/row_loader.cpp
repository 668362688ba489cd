#include "engine/cpu/row_loader.hpp"

#include <algorithm>
#include <bit>

#include "engine/cpu/simd/kernels.hpp"
#include "layout/fp8.hpp"

namespace switchyard::cpu {

namespace {

// The scales are powers of two; only their exponents travel.
void pack_exponents(std::vector<float> const& scales, std::vector<std::uint32_t>& words) {
  std::ranges::fill(words, 0);
  for (std::size_t group = 0; group < scales.size(); ++group)
    words[group / 4] |= std::bit_cast<std::uint32_t>(scales[group]) >> 23 << group % 4 * 8;
}

}  // namespace

RowLoader::RowLoader(RowSource const& source) : source_(source) {
  auto const groups = static_cast<std::size_t>(scale_groups(source.x.size(1)));
  bool const casts = source.cast != SendCast::none;
  if (casts) values_.resize(static_cast<std::size_t>(source.x.size(1)));
  if (casts) {
    scales_.resize(groups);
  } else if (source.scales.given() && source.scales.dtype != DType::u8 && source.scales.stride(1) != 1) {
    scales_.resize(static_cast<std::size_t>(source.scales.size(1)));
  }
  if (source.cast == SendCast::fp8_ue8m0) packed_.resize((groups + 3) / 4);
}

LoadedRow RowLoader::load(std::int64_t token) {
  if (source_.cast == SendCast::none) return {row_at(token), scales_at(token)};
  cast_to_fp8({.from = row_at(token),
               .count = values_.size(),
               .dtype = source_.x.dtype,
               .values = values_.data(),
               .scales = scales_.data(),
               .power_of_two = source_.cast != SendCast::fp8});
  auto const* const values = reinterpret_cast<std::byte const*>(values_.data());
  if (source_.cast != SendCast::fp8_ue8m0) return {values, reinterpret_cast<std::byte const*>(scales_.data())};
  pack_exponents(scales_, packed_);
  return {values, reinterpret_cast<std::byte const*>(packed_.data())};
}

std::byte const* RowLoader::row_at(std::int64_t token) const {
  ConstTensorView const& x = source_.x;
  return static_cast<std::byte const*>(x.data) + token * x.stride(0) * static_cast<std::int64_t>(size_of(x.dtype));
}

std::byte const* RowLoader::scales_at(std::int64_t token) {
  ConstTensorView const& scales = source_.scales;
  if (!scales.given()) return nullptr;
  if (scales.dtype == DType::u8) return static_cast<std::byte const*>(scales.data) + token * scales.stride(0);
  auto const* const from = static_cast<float const*>(scales.data) + token * scales.stride(0);
  if (scales.stride(1) == 1) return reinterpret_cast<std::byte const*>(from);
  for (std::size_t group = 0; group < scales_.size(); ++group)
    scales_[group] = from[static_cast<std::int64_t>(group) * scales.stride(1)];
  return reinterpret_cast<std::byte const*>(scales_.data());
}

}  // namespace switchyard::cpu
