// The server's side of one connection to the store: bytes in, frames out of them, answers back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/tcp_store/frame.hpp"

namespace switchyard {

// Values are shared with the store: sixty ranks that read the same 16 MiB must not cost a gigabyte.
using StoredValue = std::shared_ptr<std::vector<std::byte> const>;

struct WaitingGet {
  std::string key;
  std::uint32_t request = 0;
};

class TcpStoreConnection {
 public:
  TcpStoreConnection(UniqueFd socket, std::string name, Deadline hello_deadline);

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] std::string const& name() const noexcept { return name_; }
  [[nodiscard]] bool open() const noexcept { return static_cast<bool>(socket_); }
  void close() noexcept { socket_.reset(); }

  [[nodiscard]] bool admitted() const noexcept { return admitted_; }
  void admit() noexcept { admitted_ = true; }
  [[nodiscard]] Deadline const& hello_deadline() const noexcept { return hello_deadline_; }

  // Reads what is there, up to a chunk. False at the end of the stream or on an error.
  bool receive();
  // The first whole frame; consume() drops it.
  [[nodiscard]] ParsedFrame next() const noexcept;
  void consume(std::size_t bytes) {
    incoming_.erase(incoming_.begin(), incoming_.begin() + static_cast<long>(bytes));
  }

  // While an answer is on its way no further frame is handled, which bounds what a reader that does not
  // read can make the server hold.
  [[nodiscard]] bool sending() const noexcept { return !head_.empty(); }
  void answer(FrameOp op, std::uint32_t request, StoredValue value = {});
  void answer_text(FrameOp op, std::uint32_t request, std::string_view text);
  // Sends what the socket takes. False when the connection is broken.
  bool flush();

  // A get whose key is not set yet. At most one: a further request takes its place.
  std::optional<WaitingGet> waiting;

  // Why this connection cannot be served, for its hello to be answered with; empty for others.
  std::string refusal;

 private:
  UniqueFd socket_;
  std::string name_;
  Deadline hello_deadline_;
  bool admitted_ = false;
  std::vector<std::byte> incoming_;
  std::vector<std::byte> head_;
  StoredValue body_;
  std::size_t sent_ = 0;
};

}  // namespace switchyard
