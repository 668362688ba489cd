// A heap that grows: its rank tells the processes that map it, and each answers once it has mapped the new memory
// too.
//
// Every rank has a datagram socket and a thread that serves it, so a heap grows while its peers' callers compute,
// and while kernels of all ranks run: what is mapped already does not move, and a kernel that was launched before
// may use what is mapped after. Ranks that are threads of one process share a mapping, and need no message.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/refusal.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/socket.hpp"
#include "memory/symmetric_heap.hpp"
#include "node/peer_card.hpp"

namespace switchyard {

// Where a rank learns of growth. Its bytes are sent as they lie.
struct GrowthAddress {
  RandomBytes name{};    // of the socket
  RandomBytes secret{};  // which whoever writes to it must show
};

class GrowthLinks final : public HeapGrowth {
 public:
  // Another process that maps the own segment, and whose segment is mapped here.
  struct Peer {
    int rank = 0;
    GrowthAddress address;
    std::shared_ptr<Segment> segment;
  };
  struct Terms {
    int rank = 0;
    std::shared_ptr<Segment> own{};
    std::vector<Peer> peers{};
    std::function<bool(int)> is_gone{};    // whether a rank has left; any thread asks
    std::function<std::size_t()> spare{};  // see HeapGrowth
    std::chrono::milliseconds timeout{0};  // of the wait for all peers' answers
  };

  GrowthLinks();
  ~GrowthLinks() override;
  GrowthLinks(GrowthLinks const&) = delete;
  GrowthLinks& operator=(GrowthLinks const&) = delete;

  [[nodiscard]] GrowthAddress const& address() const noexcept { return address_; }
  // Peers may write from when they know the address; they are served from here on.
  void start(Terms terms);

  void grow(std::size_t bytes) override;
  void shrink(std::size_t bytes) override;
  [[nodiscard]] std::size_t spare() const override { return terms_.spare(); }

 private:
  struct Message;
  enum class Kind : std::uint32_t { grow = 1, shrink, answer };
  // One for each of terms_.peers.
  struct Link {
    bool awaited = false;  // its answer is missing
    bool silent = false;   // it has not answered in time, and is not asked again before it does
    std::optional<Refusal> refusal;
  };

  // Returns the first peer's refusal once all that are there have answered.
  std::optional<Refusal> tell_all(Message const& message, int fd, std::chrono::milliseconds timeout);
  std::optional<Refusal> wait_for_answers(std::chrono::milliseconds timeout);
  [[nodiscard]] std::optional<std::size_t> missing_peer();
  bool tell(std::size_t peer, Message const& message, int fd, std::optional<Refusal>& refusal);
  enum class Sending : std::uint8_t { done, gone, full, stuck };
  // Waits for room in the peer's queue. Not for the thread, whose own queue peers wait for.
  Sending send_to(std::size_t peer, Message const& message, int fd);
  Sending try_send(std::size_t peer, Message message, int fd);

  void serve() noexcept;
  // Answers that have not found room yet. While they wait the thread goes on reading: ranks that grow at the same
  // time would otherwise wait for one another's queues in a circle.
  class Outbox;
  void receive(Outbox& answers);
  [[nodiscard]] Message obey(std::size_t peer, Message const& message, UniqueFd fd);
  void note_answer(std::size_t peer, Message const& message);

  GrowthAddress address_;
  UniqueFd socket_;
  Wakeup stop_;
  Terms terms_;
  std::vector<std::size_t> at_first_;             // bytes of peers' segments, which they keep
  std::vector<std::optional<std::size_t>> owed_;  // by peer: where the own segment ends, if it could not be sent
  std::mutex mutex_;                              // guards what follows
  std::vector<Link> links_;
  std::uint64_t sequence_ = 0;  // of what this rank tells
  std::condition_variable answered_;
  std::thread thread_;
};

}  // namespace switchyard
