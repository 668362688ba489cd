#include "engine/cuda/host/host_mailbox.hpp"

#include <cstring>

#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

// The GPU is the other party. C++'s memory model does not cover it, but these atomics compile to the loads and
// stores that are needed.
template <typename T>
std::atomic_ref<T> shared(T const& word) {
  return std::atomic_ref<T>(const_cast<T&>(word));
}

HostMailbox::Ticket ticket_of(std::uint64_t word) {
  return {.number = word >> 1, .failed = (word & 1) != 0};
}

}  // namespace

HostMailbox::HostMailbox(int max_local_experts) : max_local_experts_(static_cast<std::size_t>(max_local_experts)) {
  std::size_t const bytes = sizeof(Mailbox) + 2 * max_local_experts_ * sizeof(std::int64_t);
  void* host = nullptr;
  void* device = nullptr;
  check_cuda(cudaHostAlloc(&host, bytes, cudaHostAllocMapped | cudaHostAllocPortable), "pinned memory");
  host_.reset(static_cast<Mailbox*>(host));
  std::memset(host, 0, bytes);
  check_cuda(cudaHostGetDevicePointer(&device, host, 0), "pinned memory");
  device_ = static_cast<Mailbox*>(device);
}

void HostMailbox::Free::operator()(Mailbox* mailbox) const noexcept {
  cudaFreeHost(mailbox);
}

HostMailbox::Ticket HostMailbox::ticket() const noexcept {
  return ticket_of(shared(host_->ticket).load(std::memory_order_acquire));
}

HostMailbox::Ticket HostMailbox::answered() const noexcept {
  return ticket_of(shared(host_->answered).load(std::memory_order_acquire));
}

bool HostMailbox::has_trouble() const noexcept {
  return shared(host_->trouble.state).load(std::memory_order_acquire) != 0;
}

void HostMailbox::clear_trouble() noexcept {
  shared(host_->trouble.state).store(0, std::memory_order_release);  // no kernel runs that could report
}

std::int64_t HostMailbox::take_bad_slot() noexcept {
  std::atomic_ref<std::uint64_t> const word = shared(host_->bad_slot);
  // Relaxed: nothing else goes with the word. Both accesses pair with the store_relaxed() in note_bad_id() on the
  // device.
  if (word.load(std::memory_order_relaxed) == 0) return -1;
  return static_cast<std::int64_t>(word.exchange(0, std::memory_order_relaxed)) - 1;
}

void HostMailbox::set_lost(LocalRankMask mask) noexcept {
  shared(host_->lost)
      .store(mask, std::memory_order_release);  // pairs with the load in reason_to_stop() on the device
}

void HostMailbox::set_aborted() noexcept {
  shared(host_->aborted)
      .store(1, std::memory_order_release);  // pairs with the load in reason_to_stop() on the device
}

void HostMailbox::clear_aborted() noexcept {
  shared(host_->aborted)
      .store(0, std::memory_order_release);  // pairs with the load in reason_to_stop() of later kernels
}

std::span<std::int64_t const> HostMailbox::padded() const noexcept {
  return {reinterpret_cast<std::int64_t const*>(host_.get() + 1), max_local_experts_};
}

std::span<std::int64_t const> HostMailbox::real() const noexcept {
  return {padded().data() + max_local_experts_, max_local_experts_};
}

}  // namespace switchyard::cuda
