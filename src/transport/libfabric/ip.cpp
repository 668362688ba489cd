#include "transport/libfabric/ip.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <rdma/fabric.h>

#include <cstring>

namespace switchyard::transport::libfabric {

namespace {

template <typename Address>
std::string text_as(int family, Address const& address) {
  char text[INET6_ADDRSTRLEN] = {};
  return ::inet_ntop(family, &address, text, sizeof text) != nullptr ? text : "";
}

}  // namespace

std::string ip_text(std::uint32_t format, void const* address, std::size_t bytes) {
  if (address == nullptr) return "";
  if (format == FI_SOCKADDR_IN && bytes >= sizeof(sockaddr_in)) {
    sockaddr_in ipv4{};
    std::memcpy(&ipv4, address, sizeof ipv4);
    return text_as(AF_INET, ipv4.sin_addr);
  }
  if (format == FI_SOCKADDR_IN6 && bytes >= sizeof(sockaddr_in6)) {
    sockaddr_in6 ipv6{};
    std::memcpy(&ipv6, address, sizeof ipv6);
    return text_as(AF_INET6, ipv6.sin6_addr);
  }
  return "";
}

bool is_loopback(std::string_view address) noexcept {
  return address.starts_with("127.") || address == "::1";
}

bool is_link_local(std::string_view address) noexcept {
  return address.starts_with("fe80:") || address.starts_with("169.254.");
}

}  // namespace switchyard::transport::libfabric
