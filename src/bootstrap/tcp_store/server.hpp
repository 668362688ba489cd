// Serves a store over TCP, from one thread.
//
// Everything that connects is a stranger until it has shown in a handshake that it knows the job's token. A
// stranger that sends anything else, or nothing for a while, is closed with a line in the log; it makes the server
// hold no more than one message of a handshake. There is room for a bounded number of them: where it is full, who
// has had time enough makes room for others. Ranks that have shown the token are trusted with memory, and each of
// their frames has a tag.
//
// The server lives as long as this object: its destructor does not wait for the clients. Whoever still waits
// for a key then gets PeerLost. A Node uses the store while it is being constructed, and not afterwards, so
// rank 0 may leave at any time after that.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "bootstrap/address.hpp"
#include "bootstrap/socket.hpp"

namespace switchyard {

struct TcpStoreServerOptions {
  std::string listen = "127.0.0.1";  // an address or a name of this machine; 0.0.0.0 or ::, all of its addresses
  std::uint16_t port = 0;            // 0: any free one
  std::string token;                 // may be empty on loopback
  std::chrono::milliseconds handshake_timeout{5000};
  std::string listen_name = "listen";  // where `listen` is from, for errors
};

class TcpStoreServer {
 public:
  // Listens when it returns. Throws SystemError when the port is taken, InvalidArgument when `listen` is not an
  // address of this machine.
  explicit TcpStoreServer(TcpStoreServerOptions const& options);
  ~TcpStoreServer();
  TcpStoreServer(TcpStoreServer const&) = delete;
  TcpStoreServer& operator=(TcpStoreServer const&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return address_.port(); }
  // Where this machine can connect to it, in digits.
  [[nodiscard]] HostPort address() const;

 private:
  class Loop;
  Wakeup stop_;
  InetAddress address_;
  std::unique_ptr<Loop> loop_;
  std::thread thread_;
};

}  // namespace switchyard
