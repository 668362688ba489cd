// What comes to an endpoint.
#include <rdma/fi_errno.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "transport/libfabric/endpoint.hpp"
#include "transport/libfabric/failures.hpp"

namespace switchyard::transport::libfabric {

namespace {

constexpr std::size_t batch = 32;  // completions that are read at once

// Newer libraries have a larger entry; one that takes us for newer than we are writes into this room.
struct ErrorEntry {
  fi_cq_err_entry entry{};
  std::array<std::byte, 128> room{};
};

}  // namespace

std::size_t FabricEndpoint::poll(std::span<Event> events) {
  go_on();
  std::size_t filled = hand_over(events);
  while (filled < events.size()) {
    bool const more = read_queue(std::min(batch, events.size() - filled));
    filled += hand_over(events.subspan(filled));
    if (!more) break;
  }
  return filled;
}

std::size_t FabricEndpoint::hand_over(std::span<Event> events) {
  std::size_t const count = std::min(events.size(), events_.size());
  for (std::size_t i = 0; i < count; ++i) {
    events[i] = events_.front();
    events_.pop_front();
  }
  return count;
}

// What found no room before. A peer that is lost would leave none for ever.
void FabricEndpoint::go_on() {
  for (Receive* receive : std::exchange(unposted_, {})) post_receive(*receive);
  for (Operation* operation : std::exchange(waiting_, {})) {
    PeerState const& peer = peers_.of(operation->write.to);
    if (peer.lost) {
      fail(*operation, 0, std::string(peer.reason));
    } else {
      advance(*operation);
    }
  }
}

// Each completion makes at most one event, so that what was asked for is not exceeded. False when there are no
// more.
bool FabricEndpoint::read_queue(std::size_t most) {
  std::array<fi_cq_data_entry, batch> entries;
  ssize_t const count = fi_cq_read(context_.queue(), entries.data(), most);
  if (count == -FI_EAGAIN) return false;
  if (count == -FI_EAVAIL) return read_error();
  if (count < 0) {
    throw SystemError(fmt::format("libfabric: completions of {}: {}", context_.name(),
                                  context_.error_text(static_cast<int>(-count))));
  }
  for (ssize_t i = 0; i < count; ++i) take_completion(entries[static_cast<std::size_t>(i)]);
  return static_cast<std::size_t>(count) == most;
}

// An arrival is known by FI_REMOTE_WRITE: some providers say that there is remote data on the sender's side, too.
void FabricEndpoint::take_completion(fi_cq_data_entry const& entry) {
  bool const by_write = (entry.flags & FI_REMOTE_WRITE) != 0;
  if (by_write && (entry.flags & FI_REMOTE_CQ_DATA) != 0) {
    events_.push_back({Event::Kind::arrived, static_cast<std::uint32_t>(entry.data)});
  }
  if (Receive* const receive = operations_.receive_of(entry.op_context)) {
    if (!by_write) take_message(*receive, entry);
    post_receive(*receive);
    return;
  }
  Operation* const operation = by_write ? nullptr : operations_.operation_of(entry.op_context);
  if (operation != nullptr) finish(*operation);
}

void FabricEndpoint::take_message(Receive& receive, fi_cq_data_entry const& entry) {
  if (entry.len == sizeof(Message) && receive.message.mark == Message::right_mark) {
    events_.push_back({Event::Kind::arrived, receive.message.immediate});
  } else {
    logger().warn("libfabric: {}: ignored a message of {} bytes, which no peer sends", context_.name(), entry.len);
  }
}

// A step is done.
void FabricEndpoint::finish(Operation& operation) {
  bool const over =
      operation.step == Step::message || (operation.step == Step::last_part && capabilities_.counts_remotely);
  if (over) {
    events_.push_back({Event::Kind::sent, 0, operation.write.context, operation.write.to});
    operations_.give_back(operation);
    return;
  }
  operation.done += operation.step_bytes;
  advance(operation);
}

void FabricEndpoint::advance(Operation& operation) {
  ssize_t const status = post_step(operation);
  if (status == 0) return;
  if (status == -FI_EAGAIN) {
    waiting_.push_back(&operation);
    return;
  }
  int const error = static_cast<int>(-status);
  fail(operation, error,
       fmt::format("{}: libfabric: {}: {}", peers_.of(operation.write.to).name, context_.name(),
                   context_.error_text(error)));
}

void FabricEndpoint::fail(Operation& operation, int error, std::string const& text) {
  PeerState& peer = peers_.of(operation.write.to);
  peer.lost = peer.lost || means_lost(error);
  peer.reason = text;
  events_.push_back({Event::Kind::failed, 0, operation.write.context, operation.write.to});
  operations_.give_back(operation);
}

// False when there is none, whatever the queue has said.
bool FabricEndpoint::read_error() {
  ErrorEntry read;
  if (fi_cq_readerr(context_.queue(), &read.entry, 0) <= 0) return false;
  std::string const text = text_of(read.entry);
  if (Operation* const operation = operations_.operation_of(read.entry.op_context)) {
    fail(*operation, read.entry.err, fmt::format("{}: {}", peers_.of(operation->write.to).name, text));
    return true;
  }
  reason_without_a_peer_ = text;
  events_.push_back({Event::Kind::failed});
  if (Receive* const receive = operations_.receive_of(read.entry.op_context)) post_receive(*receive);
  return true;
}

std::string FabricEndpoint::text_of(fi_cq_err_entry const& error) const {
  std::array<char, 256> room{};
  char const* const own =
      fi_cq_strerror(context_.queue(), error.prov_errno, error.err_data, room.data(), room.size());
  return fmt::format("libfabric: {}: {}{}{}", context_.name(), context_.error_text(error.err),
                     own != nullptr ? "; " : "", own != nullptr ? own : "");
}

void FabricEndpoint::post_receive(Receive& receive) {
  void* const descriptor = memory_.receives ? fi_mr_desc(memory_.receives.get()) : nullptr;
  ssize_t const status = fi_recv(context_.endpoint(), &receive.message, sizeof receive.message, descriptor,
                                 FI_ADDR_UNSPEC, &receive.room);
  if (status == -FI_EAGAIN) {
    unposted_.push_back(&receive);
  } else if (status != 0) {
    throw SystemError(fmt::format("libfabric: fi_recv on {}: {}", context_.name(),
                                  context_.error_text(static_cast<int>(-status))));
  }
}

}  // namespace switchyard::transport::libfabric
