// The memory of a port: anonymous, and not handed to children of fork(), which would move pages that a NIC writes
// to.
#pragma once

#include <cstddef>
#include <span>

namespace switchyard::scale_out {

class Mapping {
 public:
  // Throws OutOfMemory.
  explicit Mapping(std::size_t bytes);
  ~Mapping();
  Mapping(Mapping const&) = delete;
  Mapping& operator=(Mapping const&) = delete;

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace switchyard::scale_out
