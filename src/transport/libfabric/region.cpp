#include "transport/libfabric/region.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard::transport::libfabric {

FabricRegion::FabricRegion(Context& context, std::span<std::byte> memory, std::size_t piece_bytes)
    : context_(&context), memory_(memory) {
  require(!memory.empty(), "register_memory: expected some bytes, seen none");
  key_.bytes = memory.size();
  key_.piece_bytes = piece_bytes;
  for (std::size_t offset = 0; offset < memory.size(); offset += piece_bytes) {
    auto const piece = memory.subspan(offset, std::min(piece_bytes, memory.size() - offset));
    pieces_.push_back(context.register_memory(piece.data(), piece.size(), FI_WRITE | FI_REMOTE_WRITE));
    std::uint64_t const address = reinterpret_cast<std::uintptr_t>(piece.data());
    std::uint64_t const key = fi_mr_key(pieces_.back().get());
    // A key that does not fit into 64 bits would need a mode that we have not offered (FI_MR_RAW).
    if (key == FI_KEY_NOTAVAIL) throw SystemError("register_memory: the provider has no key for the memory");
    key_.pieces.push_back({key, context.has_mode(FI_MR_VIRT_ADDR) ? address : 0});
  }
}

void* FabricRegion::descriptor(std::size_t offset) const {
  return fi_mr_desc(pieces_[offset / key_.piece_bytes].get());
}

}  // namespace switchyard::transport::libfabric
