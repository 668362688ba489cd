// Memory of the host that kernels read and write at the address that the host has.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace switchyard::cuda {

class PinnedMemory {
 public:
  explicit PinnedMemory(std::size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory const&) = delete;
  PinnedMemory& operator=(PinnedMemory const&) = delete;
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

// Pins memory that others have made, as long as what it returns lives. It must go before the memory does.
std::shared_ptr<void> pin(int device, std::span<std::byte> memory);

}  // namespace switchyard::cuda
