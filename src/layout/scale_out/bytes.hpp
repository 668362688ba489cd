// Numbers in messages between nodes. They may begin at any byte, so they are copied, never pointed to.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace switchyard::scale_out {

using Bytes = std::span<std::byte const>;

static_assert(std::endian::native == std::endian::little, "messages between nodes have little-endian numbers");

template <typename T>
requires(std::is_trivially_copyable_v<T>) T load(std::byte const* from)
noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
requires(std::is_trivially_copyable_v<T>) void store(std::byte* to, T const& value) noexcept {
  std::memcpy(to, &value, sizeof value);
}

template <typename T>
void load_all(std::byte const* from, std::vector<T>& values) noexcept {
  if (!values.empty()) std::memcpy(values.data(), from, values.size() * sizeof(T));
}

template <typename T>
void store_all(std::byte* to, std::span<T const> values) noexcept {
  if (!values.empty()) std::memcpy(to, values.data(), values.size_bytes());
}

}  // namespace switchyard::scale_out
