// Messages of the job's own: numbers and texts one after the other, which come from other ranks and are checked as
// they are read.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/check.hpp"

namespace switchyard {

class MessageWriter {
 public:
  template <typename T>
  void put(T const& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    auto const bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  // With their number before them.
  void put_bytes(std::span<std::byte const> bytes) {
    put(static_cast<std::uint64_t>(bytes.size()));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void put_text(std::string_view text) { put_bytes(std::as_bytes(std::span(text))); }
  [[nodiscard]] std::vector<std::byte> const& bytes() const noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class MessageReader {
 public:
  // `what` says in errors what it is that ends too early.
  MessageReader(std::span<std::byte const> bytes, std::string_view what) : left_(bytes), what_(what) {}

  [[nodiscard]] bool at_end() const noexcept { return left_.empty(); }
  template <typename T>
  T get() {
    T value{};
    auto const from = take(sizeof value);
    std::memcpy(&value, from.data(), sizeof value);
    return value;
  }
  std::span<std::byte const> get_bytes() {
    auto const count = get<std::uint64_t>();
    return take(count);
  }
  std::string get_text() {
    auto const bytes = get_bytes();
    return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<std::byte const> take(std::uint64_t count) {
    require(count <= left_.size(), "{}: expected {} more bytes, seen {}", what_, count, left_.size());
    auto const taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }

  std::span<std::byte const> left_;
  std::string_view what_;
};

}  // namespace switchyard
