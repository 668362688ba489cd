// A connection to a store whose bytes a test makes itself: it follows the protocol as far as the test likes.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bootstrap/address.hpp"
#include "bootstrap/handshake.hpp"
#include "bootstrap/socket.hpp"
#include "bootstrap/tcp_store/sealed_frames.hpp"
#include "support/meeting.hpp"

namespace switchyard::test {

class StoreMember {
 public:
  explicit StoreMember(HostPort const& server) {
    InetAddress const address = resolve(server).at(0);
    socket_ = UniqueFd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(socket_.get(), address.get(), address.length()), 0);
  }

  void send(ByteView bytes) const {
    // The server may have closed already; that is what the tests look at.
    [[maybe_unused]] auto const sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  // Up to `most` bytes; fewer at the end of the stream.
  [[nodiscard]] std::vector<std::byte> receive(std::size_t most) const {
    std::vector<std::byte> bytes(most);
    std::size_t got = 0;
    Deadline const deadline(plenty);
    while (got < most && wait_for(socket_.get(), POLLIN, deadline)) {
      ssize_t const step = ::recv(socket_.get(), bytes.data() + got, most - got, 0);
      if (step <= 0) break;
      got += static_cast<std::size_t>(step);
    }
    bytes.resize(got);
    return bytes;
  }

  // Reads until the server closes; false when it does not.
  [[nodiscard]] bool is_closed() const {
    std::array<std::byte, 4096> chunk;
    Deadline const deadline(plenty);
    while (wait_for(socket_.get(), POLLIN, deadline))
      if (::recv(socket_.get(), chunk.data(), chunk.size(), 0) <= 0) return true;
    return false;
  }

  // Shakes hands, and takes the first frame. False when that fails.
  bool join(std::string_view token) {
    Handshake handshake = Handshake::connect(Key::of_token(token),
                                             {.purpose = HandshakePurpose::store, .self = {.rank = 7}, .peer = {}});
    send(handshake.take_output());
    while (handshake.state() == HandshakeState::ongoing) {
      auto const bytes = receive(handshake.due());
      if (bytes.empty()) return false;
      handshake.feed(bytes);
      send(handshake.take_output());
    }
    if (handshake.state() != HandshakeState::done) return false;
    sealer_.emplace(handshake.tags_to_send());
    opener_.emplace(handshake.tags_to_expect());
    return next_op() == FrameOp::ok;
  }

  // joined:
  std::vector<std::byte> seal(Frame const& frame) { return sealer_->seal_whole(frame); }
  void send(Frame const& frame) { send(seal(frame)); }
  FrameOp next_op() {
    for (;;) {
      ParsedFrame const parsed = opener_->next();
      if (parsed.status == FrameStatus::complete) {
        FrameOp const op = parsed.frame.op;
        opener_->consume(parsed);
        return op;
      }
      auto const byte = receive(1);
      if (byte.empty() || parsed.status == FrameStatus::malformed) return FrameOp::error;
      opener_->append(byte);
    }
  }

 private:
  UniqueFd socket_;
  std::optional<FrameSealer> sealer_;
  std::optional<FrameOpener> opener_;
};

}  // namespace switchyard::test
