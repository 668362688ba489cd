#include "node/peer_links.hpp"

#include <sys/socket.h>

#include "base/check.hpp"
#include "node/peer_exchange.hpp"

namespace switchyard {

std::string_view name_of(Collective kind) noexcept {
  switch (kind) {
    case Collective::barrier: return "barrier";
    case Collective::all_gather: return "all_gather";
    case Collective::exchange_fd: return "exchange_fd";
  }
  return "an unknown collective";
}

PeerLinks::PeerLinks(std::vector<UniqueFd> sockets, int rank)
    : rank_(rank), sockets_(std::move(sockets)), monitor_(sockets_), absent_(sockets_.size(), false) {}

PeerLinks::~PeerLinks() {
  // Closing alone would show nobody that this rank is gone, as long as a forked child holds the sockets too.
  for (UniqueFd const& socket : sockets_)
    if (socket) ::shutdown(socket.get(), SHUT_RDWR);
}

std::vector<Contribution> PeerLinks::exchange(CollectiveCall call, std::span<std::byte const> mine, int fd,
                                              Deadline const& deadline) {
  if (failed_)
    throw_error(failed_->code(),
                fmt::format("{}: an earlier call failed: {}; make a new communicator on all ranks",
                            name_of(call.kind), failed_->what()),
                {.rank = failed_->rank(), .peer = failed_->peer(), .phase = failed_->phase()});
  try {
    std::vector<bool>* const absent = tolerates_loss_ ? &absent_ : nullptr;
    return PeerExchange(sockets_, rank_, monitor_, absent).run(call, mine, fd, deadline);
  } catch (Error const& error) {
    failed_ = error;
    throw;
  } catch (std::exception const& error) {  // no memory, most likely: messages may be half sent
    failed_ = SystemError(error.what(), {.rank = rank_});
    throw;
  }
}

}  // namespace switchyard
