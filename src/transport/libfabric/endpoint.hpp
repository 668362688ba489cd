// One endpoint over libfabric. endpoint.cpp has who it knows, post.cpp what leaves, poll.cpp what comes.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "transport/libfabric/context.hpp"
#include "transport/libfabric/libfabric.hpp"
#include "transport/libfabric/operations.hpp"
#include "transport/libfabric/peers.hpp"
#include "transport/libfabric/providers.hpp"

namespace switchyard::transport::libfabric {

// How much is outstanding at most.
struct Limits {
  std::size_t writes = 0;
  std::size_t arrivals = 0;
  std::size_t receives = 0;  // posted: none where immediates need none
  std::size_t piece_bytes = 0;
};

class FabricEndpoint final : public Endpoint {
 public:
  FabricEndpoint(Library const& library, Candidate const& candidate, Limits const& limits);
  ~FabricEndpoint() override;

  [[nodiscard]] Capabilities const& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] Opaque address() const override { return pack(own_); }
  Peer add_peer(Opaque const& address, std::string name) override;
  PeerRegion add_region(Peer peer, Opaque const& key) override;
  std::unique_ptr<Region> register_memory(std::span<std::byte> memory) override;
  Posted post(Write const& write) override;
  std::size_t poll(std::span<Event> events) override;
  [[nodiscard]] std::string reason(Peer peer) const override;

 private:
  // Of messages, where a provider reads and writes no memory that is not registered.
  struct OwnMemory {
    Fid<fid_mr> operations;
    Fid<fid_mr> receives;
  };

  // post.cpp. Those that return a status return libfabric's: 0, -FI_EAGAIN, or worse.
  void check(Write const& write) const;
  ssize_t post_step(Operation& operation);
  ssize_t write_with_immediate(Operation& operation);
  ssize_t write_nothing(Operation& operation);
  ssize_t write_until_delivered(Operation& operation);
  ssize_t send_message(Operation& operation);
  [[nodiscard]] std::size_t step_bytes(Operation const& operation) const;
  [[nodiscard]] fi_rma_iov target(Operation const& operation) const;
  [[noreturn]] void refuse(Operation& operation, int error);

  // poll.cpp
  void go_on();
  std::size_t hand_over(std::span<Event> events);
  bool read_queue(std::size_t most);
  void take_completion(fi_cq_data_entry const& entry);
  void take_message(Receive& receive, fi_cq_data_entry const& entry);
  void advance(Operation& operation);
  void finish(Operation& operation);
  void fail(Operation& operation, int error, std::string const& text);
  bool read_error();
  void post_receive(Receive& receive);
  [[nodiscard]] std::string text_of(fi_cq_err_entry const& error) const;

  Context context_;
  Limits limits_;
  Capabilities capabilities_;
  Address own_;
  Operations operations_;
  OwnMemory memory_;
  Peers peers_;
  std::deque<Event> events_;         // found, not handed over yet
  std::vector<Operation*> waiting_;  // whose next step found no room
  std::vector<Receive*> unposted_;   // which the provider had no room for
  std::string reason_without_a_peer_;
};

}  // namespace switchyard::transport::libfabric
