// Addresses and keys are structs that travel as bytes. They are read back only from bytes that are exactly as many,
// and what they say is then checked by who reads them.
#pragma once

#include <cstring>
#include <optional>
#include <type_traits>

#include "transport/transport.hpp"

namespace switchyard::transport {

template <typename Part>
Opaque opaque_of(Part const& part) {
  static_assert(std::has_unique_object_representations_v<Part>, "padding would travel along");
  Opaque bytes(sizeof(Part));
  std::memcpy(bytes.data(), &part, sizeof(Part));
  return bytes;
}

template <typename Part>
std::optional<Part> read_opaque(std::span<std::byte const> bytes) {
  static_assert(std::has_unique_object_representations_v<Part>);
  if (bytes.size() != sizeof(Part)) return std::nullopt;
  Part part{};
  std::memcpy(&part, bytes.data(), sizeof(Part));
  return part;
}

}  // namespace switchyard::transport
