#include "link.hpp"

#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

#include "base/deadline.hpp"

namespace transport_rate {

namespace {

constexpr std::chrono::seconds patience{20};  // without progress

void send_bytes(int socket, transport::Opaque const& bytes) {
  std::uint64_t const size = bytes.size();
  if (write(socket, &size, sizeof size) != sizeof size ||
      write(socket, bytes.data(), size) != static_cast<ssize_t>(size)) {
    throw std::runtime_error("the other process is gone");
  }
}

transport::Opaque receive_bytes(int socket) {
  std::uint64_t size = 0;
  bool good = recv(socket, &size, sizeof size, MSG_WAITALL) == sizeof size && size < 1000000;
  transport::Opaque bytes(good ? size : 0);
  good = good && recv(socket, bytes.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size);
  if (!good) throw std::runtime_error("the other process is gone");
  return bytes;
}

// Polls until the condition holds, and gives the core away as long as nothing comes.
template <typename Condition>
void poll_until(Link& link, Condition const& holds) {
  switchyard::Deadline const deadline(patience);
  while (!holds()) {
    if (link.poll()) continue;
    if (deadline.expired()) throw std::runtime_error("no progress within 20 s");
    sched_yield();
  }
}

}  // namespace

Link::Link(transport::libfabric::EndpointOptions const& options, std::size_t bytes, int control)
    : memory_(bytes, std::byte{1}), endpoint_(transport::libfabric::open_endpoint(options)) {
  region_ = endpoint_->register_memory(memory_);
  send_bytes(control, endpoint_->address());
  send_bytes(control, region_->key());
  peer_ = endpoint_->add_peer(receive_bytes(control), "the other process");
  target_ = endpoint_->add_region(peer_, receive_bytes(control));
}

bool Link::try_write(std::size_t offset, std::size_t bytes, Kind kind) {
  transport::Write write;
  write.to = peer_;
  write.from = bytes > 0 ? region_.get() : nullptr;
  write.from_offset = offset;
  write.into = target_;
  write.into_offset = offset;
  write.bytes = bytes;
  write.immediate = static_cast<std::uint32_t>(kind);
  if (endpoint_->post(write) == transport::Endpoint::Posted::busy) return false;
  ++posted_;
  return true;
}

void Link::write(std::size_t offset, std::size_t bytes, Kind kind) {
  poll_until(*this, [&] { return try_write(offset, bytes, kind); });
}

void Link::wait_sent(std::size_t count) {
  poll_until(*this, [&] { return sent_ >= count; });
}

void Link::await_arrivals(Kind kind, std::size_t more) {
  auto const index = static_cast<std::size_t>(kind);
  awaited_.at(index) += more;
  poll_until(*this, [&] { return arrived_.at(index) >= awaited_.at(index); });
}

bool Link::poll() {
  std::array<transport::Event, 32> events;
  std::size_t const count = endpoint_->poll(events);
  for (std::size_t i = 0; i < count; ++i) {
    switch (events[i].kind) {
      case transport::Event::Kind::sent: ++sent_; break;
      case transport::Event::Kind::arrived: ++arrived_.at(events[i].immediate); break;
      case transport::Event::Kind::failed: throw std::runtime_error(endpoint_->reason(events[i].peer));
    }
  }
  while (credits_given_ < arrived_[static_cast<std::size_t>(Kind::data)] && try_write(0, 0, Kind::credit)) {
    ++credits_given_;
  }
  return count > 0;
}

}  // namespace transport_rate
