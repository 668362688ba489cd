// The owner of the pinned memory that host and GPU share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/cuda/host/mailbox.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

class HostMailbox {
 public:
  explicit HostMailbox(int max_local_experts);

  [[nodiscard]] Mailbox* device() const noexcept { return device_; }
  [[nodiscard]] Mailbox const& get() const noexcept { return *host_; }

  struct Ticket {
    std::uint64_t number;
    bool failed;  // a trouble was reported; its words may become visible a little later
  };
  // What kernels wrote before the ticket is visible afterwards: these acquire loads pair with the store_release()
  // in publish_ticket() on the device.
  [[nodiscard]] Ticket ticket() const noexcept;
  [[nodiscard]] Ticket answered() const noexcept;
  // The acquire load pairs with the store_release() in report() on the device.
  [[nodiscard]] bool has_trouble() const noexcept;
  void clear_trouble() noexcept;
  // Low-latency mode: the IdPlace of an id out of range since the last call of this; -1 when there is none.
  [[nodiscard]] std::int64_t take_bad_slot() noexcept;
  // Waiting kernels read what these write.
  void set_lost(LocalRankMask mask) noexcept;
  void set_aborted() noexcept;
  void clear_aborted() noexcept;

  [[nodiscard]] std::span<std::int64_t const> padded() const noexcept;
  [[nodiscard]] std::span<std::int64_t const> real() const noexcept;

 private:
  struct Free {
    void operator()(Mailbox* mailbox) const noexcept;
  };
  std::unique_ptr<Mailbox, Free> host_;
  Mailbox* device_ = nullptr;
  std::size_t max_local_experts_;
};

}  // namespace switchyard::cuda
