// The server's side of one connection to the store: a handshake, then bytes in, frames out of them, answers back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/handshake.hpp"
#include "bootstrap/tcp_store/sealed_frames.hpp"

namespace switchyard {

// Values are shared with the store: sixty ranks that read the same 16 MiB must not cost a gigabyte.
using StoredValue = std::shared_ptr<std::vector<std::byte> const>;

struct WaitingGet {
  std::string key;
  std::uint32_t request = 0;
};

// How long a connection may take to show the token.
struct StrangerDeadlines {
  Deadline handshake;  // at most
  Deadline room;       // where others wait for its place
};

class TcpStoreConnection {
 public:
  TcpStoreConnection(UniqueFd socket, std::string name, Handshake handshake, StrangerDeadlines const& deadlines);

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // Where it comes from, and what rank it says it is.
  [[nodiscard]] std::string name() const;
  [[nodiscard]] bool open() const noexcept { return static_cast<bool>(socket_); }
  void close() noexcept { socket_.reset(); }

  // Whether it has shown the token.
  [[nodiscard]] bool admitted() const noexcept { return opener_.has_value(); }
  [[nodiscard]] StrangerDeadlines const& deadlines() const noexcept { return deadlines_; }
  [[nodiscard]] Handshake const& handshake() const noexcept { return handshake_; }

  // Reads what is there, up to a chunk; of a stranger, no more than the message that is due. False at the end of
  // the stream or on an error.
  bool receive();
  // admitted: the first whole frame; consume() drops it.
  [[nodiscard]] ParsedFrame next() const { return opener_->next(); }
  void consume(ParsedFrame const& frame) { opener_->consume(frame); }

  // While an answer is on its way no further frame is handled, which bounds what a reader that does not
  // read can make the server hold.
  [[nodiscard]] bool sending() const noexcept { return !head_.empty(); }
  void answer(FrameOp op, std::uint32_t request, StoredValue value = {});
  void answer_text(FrameOp op, std::uint32_t request, std::string_view text);
  // Sends what the socket takes. False when the connection is broken.
  bool flush();

  // A get whose key is not set yet. At most one: a further request takes its place.
  std::optional<WaitingGet> waiting;

  // Why this connection cannot be served, to be said once it has shown the token; empty for others.
  std::string refusal;

 private:
  void feed(ByteView bytes);

  UniqueFd socket_;
  std::string name_;
  Handshake handshake_;
  StrangerDeadlines deadlines_;
  std::optional<FrameOpener> opener_;
  std::optional<FrameSealer> sealer_;
  // What is being sent: the first and the last part are this connection's own.
  std::vector<std::byte> head_;
  StoredValue body_;
  std::vector<std::byte> tail_;
  std::size_t sent_ = 0;
};

}  // namespace switchyard
