// What leaves an endpoint.
#include <rdma/fi_errno.h>

#include <algorithm>

#include "base/check.hpp"
#include "transport/checks.hpp"
#include "transport/libfabric/endpoint.hpp"
#include "transport/libfabric/failures.hpp"

namespace switchyard::transport::libfabric {

namespace {

std::uint64_t left_in_piece(std::uint64_t offset, std::uint64_t piece_bytes) {
  return piece_bytes - offset % piece_bytes;
}

}  // namespace

Endpoint::Posted FabricEndpoint::post(Write const& write) {
  PeerState const& peer = peers_.of(write.to);
  check(write);
  if (peer.lost) throw PeerLost(peer.reason);
  Operation* const operation = operations_.take();
  if (operation == nullptr) return Posted::busy;
  operation->write = write;
  operation->from = write.bytes > 0 ? static_cast<FabricRegion const*>(write.from) : nullptr;
  operation->done = 0;
  ssize_t const status = post_step(*operation);
  if (status == 0) return Posted::yes;
  if (status != -FI_EAGAIN) refuse(*operation, static_cast<int>(-status));
  operations_.give_back(*operation);
  return Posted::busy;
}

void FabricEndpoint::check(Write const& write) const {
  auto const* const from = dynamic_cast<FabricRegion const*>(write.from);
  bool const is_ours = from != nullptr && from->context() == &context_;
  require(is_ours || write.from == nullptr, "Write::from: expected a region of this endpoint, seen another's");
  check_write(write, {.from_bytes = is_ours ? from->bytes().size() : 0,
                      .into_bytes = peers_.region(write.into, write.to).key.bytes,
                      .most_bytes = capabilities_.max_write_bytes});
}

void FabricEndpoint::refuse(Operation& operation, int error) {
  PeerState& peer = peers_.of(operation.write.to);
  operations_.give_back(operation);
  std::string const text =
      fmt::format("{}: libfabric: {}: {}", peer.name, context_.name(), context_.error_text(error));
  if (!means_lost(error)) throw SystemError(text);
  peer.lost = true;
  peer.reason = text;
  throw PeerLost(text);
}

// The longest that lies in one piece on either side.
std::size_t FabricEndpoint::step_bytes(Operation const& operation) const {
  Write const& write = operation.write;
  RegionKey const& into = peers_.region(write.into, write.to).key;
  std::uint64_t const left = write.bytes - operation.done;
  return std::min({left, left_in_piece(write.from_offset + operation.done, operation.from->piece_bytes()),
                   left_in_piece(write.into_offset + operation.done, into.piece_bytes)});
}

fi_rma_iov FabricEndpoint::target(Operation const& operation) const {
  Write const& write = operation.write;
  RegionKey const& into = peers_.region(write.into, write.to).key;
  std::uint64_t const offset = write.into_offset + operation.done;
  PieceKey const& piece = into.pieces[offset / into.piece_bytes];
  return {piece.base + offset % into.piece_bytes, operation.step_bytes, piece.key};
}

ssize_t FabricEndpoint::post_step(Operation& operation) {
  bool const remotely = capabilities_.counts_remotely;
  if (!remotely && operation.done == operation.write.bytes) {
    operation.step = Step::message;
    return send_message(operation);
  }
  if (operation.from == nullptr) {
    operation.step = Step::last_part;
    return write_nothing(operation);
  }
  operation.step_bytes = step_bytes(operation);
  bool const last = operation.done + operation.step_bytes == operation.write.bytes;
  operation.step = last ? Step::last_part : Step::part;
  return last && remotely ? write_with_immediate(operation) : write_until_delivered(operation);
}

ssize_t FabricEndpoint::write_with_immediate(Operation& operation) {
  Write const& write = operation.write;
  fi_rma_iov const into = target(operation);
  std::size_t const offset = write.from_offset + operation.done;
  return fi_writedata(context_.endpoint(), operation.from->bytes().data() + offset, operation.step_bytes,
                      operation.from->descriptor(offset), write.immediate, peers_.of(write.to).entry, into.addr,
                      into.key, &operation.room);
}

// But an immediate. Any place of the region will do; providers may check keys all the same.
ssize_t FabricEndpoint::write_nothing(Operation& operation) {
  Write const& write = operation.write;
  PieceKey const& into = peers_.region(write.into, write.to).key.pieces.front();
  return fi_writedata(context_.endpoint(), nullptr, 0, nullptr, write.immediate, peers_.of(write.to).entry,
                      into.base, into.key, &operation.room);
}

// Without an immediate: the next step is posted when the peer has all bytes of this one.
ssize_t FabricEndpoint::write_until_delivered(Operation& operation) {
  Write const& write = operation.write;
  std::size_t const offset = write.from_offset + operation.done;
  iovec const source{operation.from->bytes().data() + offset, operation.step_bytes};
  void* descriptor = operation.from->descriptor(offset);
  fi_rma_iov const into = target(operation);
  fi_msg_rma message{};
  message.msg_iov = &source;
  message.desc = &descriptor;
  message.iov_count = 1;
  message.addr = peers_.of(write.to).entry;
  message.rma_iov = &into;
  message.rma_iov_count = 1;
  message.context = &operation.room;
  return fi_writemsg(context_.endpoint(), &message, FI_DELIVERY_COMPLETE);
}

// Nothing orders it but that it is posted after the write was delivered. A fence would do the same within the NIC,
// but it holds up all other writes to the peer, and few providers have it.
ssize_t FabricEndpoint::send_message(Operation& operation) {
  operation.message.immediate = operation.write.immediate;
  void* const descriptor = memory_.operations ? fi_mr_desc(memory_.operations.get()) : nullptr;
  return fi_send(context_.endpoint(), &operation.message, sizeof operation.message, descriptor,
                 peers_.of(operation.write.to).entry, &operation.room);
}

}  // namespace switchyard::transport::libfabric
