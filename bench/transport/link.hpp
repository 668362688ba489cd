// Two endpoints that know each other: this process's, and that of the process at the other end of a socket.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/libfabric/libfabric.hpp"

namespace transport_rate {

namespace transport = switchyard::transport;

// What a write is for; its immediate. Each kind is counted from the start, as what the other process sends for its
// next step may come while this one is still in the last.
enum class Kind : std::uint32_t { data, credit, word };

class Link {
 public:
  // `control`: a stream socket to the other process, which makes one as well, with the same `bytes`.
  Link(transport::libfabric::EndpointOptions const& options, std::size_t bytes, int control);

  // Posts a write of `bytes` at `offset` on both sides; polls until there is room. 0 bytes: the immediate alone.
  void write(std::size_t offset, std::size_t bytes, Kind kind);
  // Polls until that many writes were sent since the start.
  void wait_sent(std::size_t count);
  // Polls until as many more have arrived as were awaited before.
  void await_arrivals(Kind kind, std::size_t more);
  // Takes what has come, and gives a credit for each write of data. False when nothing came.
  bool poll();

  [[nodiscard]] std::size_t posted() const { return posted_; }
  [[nodiscard]] transport::Capabilities const& capabilities() const { return endpoint_->capabilities(); }

 private:
  bool try_write(std::size_t offset, std::size_t bytes, Kind kind);

  std::vector<std::byte> memory_;
  std::unique_ptr<transport::Endpoint> endpoint_;
  std::unique_ptr<transport::Region> region_;
  transport::Peer peer_{};
  transport::PeerRegion target_{};
  std::size_t posted_ = 0;
  std::size_t sent_ = 0;
  std::array<std::size_t, 3> arrived_{};  // by kind
  std::array<std::size_t, 3> awaited_{};
  std::size_t credits_given_ = 0;
};

}  // namespace transport_rate
