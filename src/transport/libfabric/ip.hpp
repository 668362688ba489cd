// Addresses of IP, which several providers have, as text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard::transport::libfabric {

// "127.0.0.1", "fd00::2"; empty when `format` is none of IP or the bytes are too few.
std::string ip_text(std::uint32_t format, void const* address, std::size_t bytes);

// Of such a text.
bool is_loopback(std::string_view address) noexcept;
bool is_link_local(std::string_view address) noexcept;

}  // namespace switchyard::transport::libfabric
