// Two endpoints that know each other: this process's, and that of the process at the other end of a socket.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "transport/libfabric/libfabric.hpp"

namespace transport_rate {

namespace transport = switchyard::transport;

class Link {
 public:
  // `control`: a stream socket to the other process, which makes one as well, with the same `bytes`.
  Link(transport::libfabric::EndpointOptions const& options, std::size_t bytes, int control);

  // Posts a write of `bytes` at `offset` on both sides; polls until there is room. 0 bytes: the immediate alone.
  void write(std::size_t offset, std::size_t bytes, std::uint32_t immediate);
  // Polls until that many writes were sent since the start.
  void wait_sent(std::size_t count);
  // Polls until as many more have arrived as were awaited before. What the other process sends for its next step
  // may come while this one is still in the last, so arrivals are counted from the start.
  void await_arrivals(std::size_t more);
  void poll();

  [[nodiscard]] std::size_t sent() const { return sent_; }
  [[nodiscard]] std::size_t arrived() const { return arrived_; }
  [[nodiscard]] std::size_t posted() const { return posted_; }
  [[nodiscard]] transport::Capabilities const& capabilities() const { return endpoint_->capabilities(); }

 private:
  std::vector<std::byte> memory_;
  std::unique_ptr<transport::Endpoint> endpoint_;
  std::unique_ptr<transport::Region> region_;
  transport::Peer peer_{};
  transport::PeerRegion target_{};
  std::size_t posted_ = 0;
  std::size_t sent_ = 0;
  std::size_t arrived_ = 0;
  std::size_t awaited_ = 0;
};

}  // namespace transport_rate
