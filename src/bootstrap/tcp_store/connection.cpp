#include "bootstrap/tcp_store/connection.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace switchyard {

namespace {

constexpr std::size_t chunk_bytes = std::size_t{256} << 10;

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

TcpStoreConnection::TcpStoreConnection(UniqueFd socket, std::string name, Deadline hello_deadline)
    : socket_(std::move(socket)), name_(std::move(name)), hello_deadline_(hello_deadline) {}

bool TcpStoreConnection::receive() {
  std::size_t const room =
      admitted_ ? chunk_bytes : sizeof(FrameHeader) + hello_limits.value_bytes - incoming_.size();
  std::size_t const before = incoming_.size();
  incoming_.resize(before + room);
  ssize_t const got = ::recv(fd(), incoming_.data() + before, room, 0);
  incoming_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return got > 0 || (got < 0 && would_block(errno));
}

ParsedFrame TcpStoreConnection::next() const noexcept {
  return parse_frame(incoming_, admitted_ ? FrameLimits{} : hello_limits);
}

void TcpStoreConnection::answer(FrameOp op, std::uint32_t request, StoredValue value) {
  body_ = std::move(value);
  sent_ = 0;
  head_ = encode_frame_head(
      {.op = op, .request = request, .key = {}, .value = body_ ? std::span(*body_) : std::span<std::byte const>{}});
}

void TcpStoreConnection::answer_text(FrameOp op, std::uint32_t request, std::string_view text) {
  auto const bytes = std::as_bytes(std::span(text));
  answer(op, request, std::make_shared<std::vector<std::byte> const>(bytes.begin(), bytes.end()));
}

bool TcpStoreConnection::flush() {
  while (sending()) {
    auto const body = body_ ? std::span(*body_) : std::span<std::byte const>{};
    auto const head_left = std::span(head_).subspan(std::min(sent_, head_.size()));
    auto const body_left = body.subspan(sent_ > head_.size() ? sent_ - head_.size() : 0);
    // sendmsg() reads through iov_base, whatever its type says.
    std::array<iovec, 2> parts{iovec{head_left.data(), head_left.size()},
                               iovec{const_cast<std::byte*>(body_left.data()), body_left.size()}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    ssize_t const sent = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (sent < 0) return would_block(errno);
    sent_ += static_cast<std::size_t>(sent);
    if (sent_ < head_.size() + body.size()) continue;
    head_.clear();
    body_.reset();
  }
  return true;
}

}  // namespace switchyard
