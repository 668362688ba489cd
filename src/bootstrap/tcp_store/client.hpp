// A rank's connection to a store that is served over TCP.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "bootstrap/socket.hpp"
#include "bootstrap/store.hpp"
#include "bootstrap/tcp_store/frame.hpp"

namespace switchyard {

// Calls are served one after another: a get that waits keeps other threads of this rank waiting.
class TcpStoreClient final : public Store {
 public:
  // Tries until `timeout` passes, because rank 0 may start late. Throws Timeout; InvalidArgument when the server
  // refuses the token; SystemError, at once, for what no waiting heals: no descriptors left here or at the server,
  // no network. `timeout` is also the deadline of every set.
  TcpStoreClient(HostPort const& server, std::string_view token, std::chrono::milliseconds timeout);

  void set(std::string_view key, std::span<std::byte const> value) override;
  std::vector<std::byte> get(std::string_view key, Deadline const& deadline) override;

 private:
  struct Answer {
    FrameOp op = FrameOp::error;
    std::vector<std::byte> value;
  };

  enum class Attempt : std::uint8_t {
    connected,
    too_early,  // nobody (who speaks the protocol) is there yet
    hopeless,   // and will not be, as far as this process is concerned
  };

  // One round over the server's addresses. False: too early.
  bool try_all(std::string_view token, Deadline const& deadline);
  // `why` says more where it does not connect.
  Attempt try_connect(sockaddr_in const& address, std::string_view token, std::string& why);
  std::uint32_t send(FrameOp op, std::string_view key, std::span<std::byte const> value, Deadline const& deadline);
  // Nothing when the deadline passes; what has arrived of the answer is kept.
  std::optional<Answer> receive(std::uint32_t request, Deadline const& deadline);
  std::optional<Answer> take_answer(std::uint32_t request);
  [[noreturn]] void fail(std::string_view what);

  HostPort server_;
  std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  UniqueFd socket_;
  std::vector<std::byte> incoming_;
  std::uint32_t request_ = 0;
  // A get that ran into its deadline is still with the server: asking for the same key again goes on waiting
  // for that answer, so that callers may wait in slices at no cost.
  std::optional<std::string> asked_;
};

}  // namespace switchyard
