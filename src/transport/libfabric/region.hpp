// Memory of this process that is registered, in pieces that a registration may have.
#pragma once

#include <vector>

#include "transport/libfabric/context.hpp"
#include "transport/libfabric/wire.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport::libfabric {

class FabricRegion final : public Region {
 public:
  FabricRegion(Context& context, std::span<std::byte> memory, std::size_t piece_bytes);

  [[nodiscard]] std::span<std::byte> bytes() const noexcept override { return memory_; }
  [[nodiscard]] Opaque key() const override { return pack(key_); }

  [[nodiscard]] Context const* context() const noexcept { return context_; }
  [[nodiscard]] std::size_t piece_bytes() const noexcept { return key_.piece_bytes; }
  // What a write that starts at this offset passes along with the address; nullptr where the provider wants
  // nothing.
  [[nodiscard]] void* descriptor(std::size_t offset) const;

 private:
  Context* context_;
  std::span<std::byte> memory_;
  RegionKey key_;
  std::vector<Fid<fid_mr>> pieces_;
};

}  // namespace switchyard::transport::libfabric
