#include "node/peer_links.hpp"

#include <sys/socket.h>

#include "base/check.hpp"
#include "bootstrap/heartbeat.hpp"
#include "node/peer_exchange.hpp"

namespace switchyard {

std::string_view name_of(Collective kind) noexcept {
  switch (kind) {
    case Collective::barrier: return "barrier";
    case Collective::all_gather: return "all_gather";
    case Collective::exchange_fd: return "exchange_fd";
    case Collective::held_up: return "a notice";
    case Collective::failed: return "a failure";
  }
  return "an unknown collective";
}

PeerLinks::PeerLinks(std::vector<UniqueFd> sockets, Member const& self, std::vector<Member> members,
                     std::vector<std::optional<LinkTags>> tags)
    : self_(self),
      members_(std::move(members)),
      sockets_(std::move(sockets)),
      tags_(std::move(tags)),
      monitor_(sockets_),
      absent_(sockets_.size(), false) {
  tags_.resize(sockets_.size());
}

PeerLinks::~PeerLinks() {
  // Closing alone would show nobody that this rank is gone, as long as a forked child holds the sockets too.
  for (UniqueFd const& socket : sockets_)
    if (socket) ::shutdown(socket.get(), SHUT_RDWR);
}

std::string PeerLinks::silence_text(int peer) const {
  return switchyard::silence_text(silence_of(sockets_[static_cast<std::size_t>(peer)].get()));
}

void PeerLinks::say_held_up(Member const& culprit) noexcept {
  say(Collective::held_up, std::as_bytes(std::span(&culprit, 1)));
}

void PeerLinks::say_failed(Error const& error) noexcept {
  FailureHead head{.code = static_cast<std::uint32_t>(error.code()), .peer = error.peer()};
  std::string const text = std::string(error.what()).substr(0, max_failure_text);
  auto const bytes = std::as_bytes(std::span(&head, 1));
  std::vector<std::byte> message(bytes.begin(), bytes.end());
  auto const tail = std::as_bytes(std::span(text));
  message.insert(message.end(), tail.begin(), tail.end());
  say(Collective::failed, message);
}

void PeerLinks::say(Collective kind, std::span<std::byte const> bytes) noexcept {
  for (std::size_t i = 0; i < sockets_.size(); ++i)
    if (sockets_[i]) send_notice(sockets_[i].get(), tags_[i], {.kind = kind, .sequence = next_}, bytes);
}

std::vector<Contribution> PeerLinks::exchange(CollectiveCall const& call, std::span<std::byte const> mine, int fd,
                                              Deadline const& deadline) {
  if (failed_)
    throw_error(failed_->code(),
                fmt::format("{}: an earlier call failed: {}; make a new communicator on all ranks",
                            name_of(call.kind), failed_->what()),
                {.rank = failed_->rank(), .peer = failed_->peer(), .phase = failed_->phase()});
  next_ = call.sequence + 1;
  std::vector<bool>* const absent = tolerates_loss_ ? &absent_ : nullptr;
  PeerExchange exchange(sockets_, tags_, {self_, members_}, monitor_, absent);
  try {
    return exchange.run(call, mine, fd, deadline);
  } catch (Error const& error) {
    failed_ = error;
  } catch (std::exception const& error) {  // no memory, most likely
    failed_ = SystemError(error.what(), {.rank = self_.rank});
  }
  // The rest of a part will not come, and nothing else may come in its place: the peer would take it for that.
  for (std::size_t index = 0; index < sockets_.size(); ++index)
    if (sockets_[index] && exchange.is_half_sent(index)) ::shutdown(sockets_[index].get(), SHUT_RDWR);
  throw_error(failed_->code(), failed_->what(),
              {.rank = failed_->rank(), .peer = failed_->peer(), .phase = failed_->phase()});
}

}  // namespace switchyard
