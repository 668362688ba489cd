#include "bootstrap/heartbeat.hpp"

#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>

namespace switchyard {

namespace {

using std::chrono::milliseconds;

constexpr int interval_s = 1;
constexpr int beats_to_give_up = 119;  // and the first second; Linux takes 127 at most
// Three heartbeats: one may be lost.
constexpr milliseconds long_silence{3000};

}  // namespace

void start_heartbeats(int socket) noexcept {
  auto const set = [socket](int level, int option, int value) {
    ::setsockopt(socket, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_KEEPIDLE, interval_s);
  set(IPPROTO_TCP, TCP_KEEPINTVL, interval_s);
  set(IPPROTO_TCP, TCP_KEEPCNT, beats_to_give_up);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
}

std::optional<milliseconds> silence_of(int socket) noexcept {
  tcp_info info{};
  socklen_t length = sizeof info;
  // Sockets of other kinds have no such option.
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return std::nullopt;
  return milliseconds{std::min(info.tcpi_last_ack_recv, info.tcpi_last_data_recv)};
}

std::string silence_text(std::optional<milliseconds> silence) {
  if (!silence) return {};
  double const seconds = static_cast<double>(silence->count()) / 1e3;
  if (*silence < long_silence) return fmt::format("; its machine answered {:.1f} s ago", seconds);
  return fmt::format("; its machine has not answered for {:.1f} s: is it off, or the link down?", seconds);
}

}  // namespace switchyard
