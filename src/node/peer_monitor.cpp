#include "node/peer_monitor.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/log.hpp"
#include "node/link_socket.hpp"

namespace switchyard {

PeerMonitor::PeerMonitor(std::span<UniqueFd const> links)
    : size_(links.size()), lost_(std::make_unique<std::atomic<bool>[]>(links.size())) {
  polled_.push_back({.fd = stop_.fd(), .events = POLLIN, .revents = 0});
  // Only POLLRDHUP is asked for (errors and POLLHUP come anyway), since what arrives is for exchange() to read.
  for (UniqueFd const& link : links) {
    polled_.push_back({.fd = link.get(), .events = POLLRDHUP, .revents = 0});
    processes_.push_back(link ? watch_process_of(link.get()) : UniqueFd());
  }
  for (UniqueFd const& process : processes_)
    polled_.push_back({.fd = process.get(), .events = POLLIN, .revents = 0});
  logger();  // throws on a bad SWITCHYARD_LOG, which the thread could not
  bool const watches = std::ranges::any_of(links, [](UniqueFd const& link) { return static_cast<bool>(link); });
  if (watches) thread_ = std::thread([this] { run(); });
}

PeerMonitor::~PeerMonitor() {
  stop_.signal();
  if (thread_.joinable()) thread_.join();
}

void PeerMonitor::run() noexcept {
  for (;;) {
    int const ready = ::poll(polled_.data(), polled_.size(), -1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) {
      // In practice this is ENOMEM. Collectives still notice by themselves when a link ends.
      logger().error("no more watch over the peers: {}", std::system_category().message(errno));
      return;
    }
    if (polled_[0].revents != 0) return;
    note_losses();
  }
}

void PeerMonitor::note_losses() noexcept {
  for (std::size_t peer = 0; peer < size_; ++peer) {
    pollfd& link = polled_[1 + peer];
    pollfd& process = polled_[1 + size_ + peer];
    if (link.revents == 0 && process.revents == 0) continue;
    mark_lost(static_cast<int>(peer));
    // poll() ignores a negative descriptor. Otherwise it would report the same event for ever.
    link = {.fd = -1, .events = 0, .revents = 0};
    process = {.fd = -1, .events = 0, .revents = 0};
  }
}

}  // namespace switchyard
