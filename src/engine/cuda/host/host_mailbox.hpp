// Owner of the pinned memory that host and GPU share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/cuda/host/mailbox.hpp"

namespace switchyard::cuda {

class HostMailbox {
 public:
  explicit HostMailbox(int max_local_experts);

  [[nodiscard]] Mailbox* device() const noexcept { return device_; }
  [[nodiscard]] Mailbox const& get() const noexcept { return *host_; }

  // Pairs with the store_release() of the ticket in the kernels: what they told before is there.
  struct Told {
    std::uint64_t ticket;
    bool failed;  // there is a trouble, or will be at once
  };
  [[nodiscard]] Told ticket() const noexcept;
  [[nodiscard]] Told answered() const noexcept;
  // Pairs with report() on the device.
  [[nodiscard]] bool troubled() const noexcept;
  void clear_trouble() noexcept;
  // Low-latency mode: token * 64 + slot of an id out of range since the last time; -1: none.
  [[nodiscard]] std::int64_t take_bad_slot() noexcept;
  // Read by waiting kernels.
  void set_lost(std::uint64_t mask) noexcept;
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
