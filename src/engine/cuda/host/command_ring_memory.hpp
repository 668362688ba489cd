// The memory of a CommandRing.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/cuda/host/command_ring.hpp"

namespace switchyard::cuda {

class CommandRingMemory {
 public:
  // On the current GPU. `places` is a power of two, which kernels divide by fast.
  explicit CommandRingMemory(std::uint32_t places);

  // There is one consumer: another would begin anew at the first command.
  [[nodiscard]] CommandRing consumer() const noexcept { return {host_.get(), host_.get() + places_, places_}; }
  [[nodiscard]] CommandRingView producers() const noexcept { return view_; }

 private:
  struct FreeHost {
    void operator()(std::uint64_t* memory) const noexcept;
  };
  struct FreeDevice {
    void operator()(std::uint64_t* memory) const noexcept;
  };
  std::uint32_t places_;
  std::unique_ptr<std::uint64_t[], FreeHost> host_;
  std::unique_ptr<std::uint64_t[], FreeDevice> device_;
  CommandRingView view_{};
};

}  // namespace switchyard::cuda
