// A rank's connection to a store that is served over TCP.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "bootstrap/address.hpp"
#include "bootstrap/handshake.hpp"
#include "bootstrap/socket.hpp"
#include "bootstrap/store.hpp"
#include "bootstrap/tcp_store/sealed_frames.hpp"

namespace switchyard {

// Who dials a store.
struct StoreCaller {
  int rank = -1;  // for the server's log; -1: not said
  Reach reach = Reach::anywhere;
  // What to throw as InvalidArgument when the server turns out to be farther away.
  std::string out_of_reach = "the store is on another machine";
};

// Calls are served one after another: a get that waits keeps other threads of this rank waiting.
class TcpStoreClient final : public Store {
 public:
  // Tries all addresses of the server until `timeout` passes, because rank 0 may start late. Throws Timeout;
  // InvalidArgument when the server refuses the token or does not know it itself, or when it is out of reach;
  // SystemError, at once, for what no waiting heals: no descriptors left here or at the server, no network.
  // `timeout` is also the deadline of every set.
  TcpStoreClient(HostPort const& server, std::string_view token, std::chrono::milliseconds timeout,
                 StoreCaller const& caller = {});

  void set(std::string_view key, std::span<std::byte const> value) override;
  std::vector<std::byte> get(std::string_view key, Deadline const& deadline) override;
  [[nodiscard]] std::string own_address() const override;

 private:
  struct Answer {
    FrameOp op = FrameOp::error;
    std::vector<std::byte> value;
  };

  enum class Attempt : std::uint8_t {
    connected,
    too_early,  // nobody (who speaks the protocol) is there yet
    hopeless,   // and will not be, as far as this process is concerned
    refused,    // somebody is there who does not know our token
  };

  // One round over the server's addresses. False: too early.
  bool try_all(Deadline const& deadline);
  // `why` says more where it does not connect.
  Attempt try_connect(InetAddress const& address, Deadline const& deadline, std::string& why);
  Attempt shake_hands(Deadline const& deadline, std::string& why);
  Attempt on_failure(Handshake const& handshake, std::string& why) const;
  void await_welcome(Deadline const& deadline);
  void send_bytes(ByteView bytes, Deadline const& deadline);
  // What has come, once something has; empty when the deadline passes.
  ByteView receive_bytes(std::size_t most, Deadline const& deadline);
  std::uint32_t send(FrameOp op, std::string_view key, std::span<std::byte const> value, Deadline const& deadline);
  // Nothing when the deadline passes; what has arrived of the answer is kept.
  std::optional<Answer> receive(std::uint32_t request, Deadline const& deadline);
  std::optional<Answer> take_answer(std::uint32_t request);
  [[noreturn]] void fail(std::string_view what);

  HostPort server_;
  std::chrono::milliseconds timeout_;
  StoreCaller caller_;
  Key key_;
  // How long one address may take to answer: longer each round, because the server may be busy with many strangers.
  std::chrono::milliseconds attempt_timeout_{2000};
  std::mutex mutex_;
  UniqueFd socket_;
  std::array<std::byte, 65536> chunk_;  // what was received last
  std::optional<FrameSealer> sealer_;
  std::optional<FrameOpener> opener_;
  std::uint32_t request_ = 0;
  // A get that ran into its deadline is still with the server: asking for the same key again goes on waiting
  // for that answer, so that callers may wait in slices at no cost.
  std::optional<std::string> asked_;
};

}  // namespace switchyard
