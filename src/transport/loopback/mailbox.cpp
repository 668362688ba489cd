#include "transport/loopback/mailbox.hpp"

#include <cstring>
#include <utility>

namespace switchyard::transport::loopback {
namespace {

// A number that came from outside as part of an address is looked up here, and never is a pointer.
struct Registry {
  std::mutex mutex;  // pairs make_mailbox() of one rank with find_mailbox() of another
  std::map<std::uint64_t, std::weak_ptr<Mailbox>> mailboxes;
  std::uint64_t next = 1;
};

Registry& registry() {
  static Registry only;
  return only;
}

std::optional<std::span<std::byte>> part_of(std::optional<std::span<std::byte>> whole, std::size_t offset,
                                            std::size_t bytes) {
  if (!whole || offset > whole->size() || bytes > whole->size() - offset) return std::nullopt;
  return whole->subspan(offset, bytes);
}

}  // namespace

std::shared_ptr<Mailbox> make_mailbox() {
  Registry& all = registry();
  std::lock_guard const lock(all.mutex);
  std::erase_if(all.mailboxes, [](auto const& entry) { return entry.second.expired(); });
  auto mailbox = std::make_shared<Mailbox>(all.next++);
  all.mailboxes.emplace(mailbox->number(), mailbox);
  return mailbox;
}

std::shared_ptr<Mailbox> find_mailbox(std::uint64_t number) {
  Registry& all = registry();
  std::lock_guard const lock(all.mutex);
  auto const found = all.mailboxes.find(number);
  return found == all.mailboxes.end() ? nullptr : found->second.lock();
}

std::uint64_t Mailbox::add_region(std::span<std::byte> memory) {
  std::unique_lock const lock(memory_mutex_);
  regions_.emplace(next_region_, memory);
  return next_region_++;
}

void Mailbox::remove_region(std::uint64_t region) {
  std::unique_lock const lock(memory_mutex_);
  regions_.erase(region);
}

std::optional<std::span<std::byte>> Mailbox::region(std::uint64_t region) const {
  std::shared_lock const lock(memory_mutex_);
  return find(region);
}

std::optional<std::span<std::byte>> Mailbox::find(std::uint64_t region) const {
  auto const found = regions_.find(region);
  if (found == regions_.end()) return std::nullopt;
  return found->second;
}

bool Mailbox::leave(Parcel parcel) {
  std::lock_guard const lock(queues_mutex_);
  if (!closed_) parcels_.push_back(std::move(parcel));
  return !closed_;
}

std::optional<Parcel> Mailbox::next_parcel() {
  std::lock_guard const lock(queues_mutex_);
  if (parcels_.empty()) return std::nullopt;
  std::optional<Parcel> parcel(std::move(parcels_.front()));
  parcels_.pop_front();
  return parcel;
}

std::optional<Mailbox::Opened> Mailbox::open_parcel() {
  auto const parcel = next_parcel();
  if (!parcel) return std::nullopt;
  Fate const fate = copy(*parcel);
  parcel->source->leave_receipt({parcel->to, parcel->context, fate});
  return Opened{parcel->immediate, fate};
}

// The source is locked, so that its region stays; this mailbox is not: its owner, who alone changes its regions, is
// who calls, and may be the source itself.
Fate Mailbox::copy(Parcel const& parcel) const {
  auto const into = part_of(find(parcel.into), parcel.into_offset, parcel.bytes);
  if (!into) return Fate::target_region_gone;
  if (parcel.from == no_region) return Fate::written;
  std::shared_lock const lock(parcel.source->memory_mutex_);
  auto const from = part_of(parcel.source->find(parcel.from), parcel.from_offset, parcel.bytes);
  if (!from) return Fate::source_region_gone;
  // One region may serve a rank as source and target.
  if (!from->empty()) std::memmove(into->data(), from->data(), from->size());
  return Fate::written;
}

void Mailbox::leave_receipt(Receipt const& receipt) {
  std::lock_guard const lock(queues_mutex_);
  if (!closed_) receipts_.push_back(receipt);
}

std::optional<Receipt> Mailbox::next_receipt() {
  std::lock_guard const lock(queues_mutex_);
  if (receipts_.empty()) return std::nullopt;
  Receipt const receipt = receipts_.front();
  receipts_.pop_front();
  return receipt;
}

void Mailbox::close() {
  std::deque<Parcel> left;
  {
    std::lock_guard const lock(queues_mutex_);
    closed_ = true;
    left.swap(parcels_);
    receipts_.clear();
  }
  for (Parcel const& parcel : left) parcel.source->leave_receipt({parcel.to, parcel.context, Fate::peer_closed});
  std::unique_lock const lock(memory_mutex_);
  regions_.clear();
}

}  // namespace switchyard::transport::loopback
