#include "bootstrap/tcp_store/connection.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/check.hpp"

namespace switchyard {

namespace {

constexpr std::size_t chunk_bytes = std::size_t{64} << 10;

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

TcpStoreConnection::TcpStoreConnection(UniqueFd socket, std::string name, Handshake handshake,
                                       StrangerDeadlines const& deadlines)
    : socket_(std::move(socket)), name_(std::move(name)), handshake_(std::move(handshake)), deadlines_(deadlines) {}

std::string TcpStoreConnection::name() const {
  std::int32_t const rank = handshake_.peer().rank;
  return rank < 0 ? name_ : fmt::format("{} (rank {}{})", name_, rank, admitted() ? "" : ", it says");
}

bool TcpStoreConnection::receive() {
  std::array<std::byte, chunk_bytes> chunk;
  std::size_t const room = admitted() ? chunk.size() : handshake_.due();
  ssize_t const got = ::recv(fd(), chunk.data(), room, 0);
  if (got <= 0) return got < 0 && would_block(errno);
  feed(std::span(chunk).first(static_cast<std::size_t>(got)));
  return true;
}

void TcpStoreConnection::feed(ByteView bytes) {
  if (admitted()) return opener_->append(bytes);
  handshake_.feed(bytes);
  head_ = handshake_.take_output();
  sent_ = 0;
  if (handshake_.state() != HandshakeState::done) return;
  opener_.emplace(handshake_.tags_to_expect());
  sealer_.emplace(handshake_.tags_to_send());
}

void TcpStoreConnection::answer(FrameOp op, std::uint32_t request, StoredValue value) {
  SealedFrame const sealed =
      sealer_->seal({.op = op, .request = request, .key = {}, .value = value ? ByteView(*value) : ByteView{}});
  if (!sending()) sent_ = 0;
  head_.insert(head_.end(), sealed.head.begin(), sealed.head.end());  // after the end of a handshake
  body_ = std::move(value);
  tail_.assign(sealed.tag.begin(), sealed.tag.end());
}

void TcpStoreConnection::answer_text(FrameOp op, std::uint32_t request, std::string_view text) {
  auto const bytes = std::as_bytes(std::span(text));
  answer(op, request, std::make_shared<std::vector<std::byte> const>(bytes.begin(), bytes.end()));
}

bool TcpStoreConnection::flush() {
  while (sending()) {
    std::array<ByteView, 3> const parts{head_, body_ ? ByteView(*body_) : ByteView{}, tail_};
    std::array<iovec, 3> left{};
    std::size_t skip = sent_;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      ByteView const rest = parts[i].subspan(std::min(skip, parts[i].size()));
      skip -= parts[i].size() - rest.size();
      // sendmsg() reads through iov_base, whatever its type says.
      left[i] = {const_cast<std::byte*>(rest.data()), rest.size()};
    }
    msghdr message{};
    message.msg_iov = left.data();
    message.msg_iovlen = left.size();
    ssize_t const sent = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (sent < 0) return would_block(errno);
    sent_ += static_cast<std::size_t>(sent);
    if (sent_ < parts[0].size() + parts[1].size() + parts[2].size()) continue;
    head_.clear();
    body_.reset();
    tail_.clear();
  }
  return true;
}

}  // namespace switchyard
