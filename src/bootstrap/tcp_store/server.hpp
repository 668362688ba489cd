// Serves a store over TCP, from one thread.
//
// Everything that connects is a stranger until its first frame is a hello with the job's token. A stranger
// that sends anything else, or nothing for a while, is closed with a line in the log; before it has shown the
// token it can make the server hold no more than a hello's worth of bytes. Ranks that have shown it are
// trusted with memory.
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

#include "bootstrap/socket.hpp"

namespace switchyard {

struct TcpStoreServerOptions {
  std::string listen = "127.0.0.1";  // an IPv4 address of this machine
  std::uint16_t port = 0;            // 0: any free one
  std::string token;
  std::chrono::milliseconds hello_timeout{5000};
};

class TcpStoreServer {
 public:
  // Listens when it returns. Throws SystemError when the port is taken.
  explicit TcpStoreServer(TcpStoreServerOptions const& options);
  ~TcpStoreServer();
  TcpStoreServer(TcpStoreServer const&) = delete;
  TcpStoreServer& operator=(TcpStoreServer const&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  class Loop;
  Wakeup stop_;
  std::uint16_t port_ = 0;
  std::unique_ptr<Loop> loop_;
  std::thread thread_;
};

}  // namespace switchyard
