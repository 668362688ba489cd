#include "bootstrap/peer_links.hpp"

#include <sys/socket.h>

#include "base/check.hpp"
#include "bootstrap/peer_exchange.hpp"

namespace switchyard {

namespace {

// The same kind of error once more.
[[noreturn]] void throw_again(Error const& error, std::string const& what) {
  ErrorFacts facts{.rank = error.rank(), .peer = error.peer(), .phase = error.phase()};
  switch (error.code()) {
    case ErrorCode::invalid_argument: throw InvalidArgument(what, std::move(facts));
    case ErrorCode::timeout: throw Timeout(what, std::move(facts));
    case ErrorCode::peer_lost: throw PeerLost(what, std::move(facts));
    case ErrorCode::out_of_memory: throw OutOfMemory(what, std::move(facts));
    case ErrorCode::unsupported: throw Unsupported(what, std::move(facts));
    case ErrorCode::system: break;
  }
  throw SystemError(what, std::move(facts));
}

}  // namespace

std::string_view name_of(Collective kind) noexcept {
  switch (kind) {
    case Collective::barrier: return "barrier";
    case Collective::all_gather: return "all_gather";
    case Collective::exchange_fd: return "exchange_fd";
  }
  return "an unknown collective";
}

PeerLinks::PeerLinks(std::vector<UniqueFd> sockets, int rank)
    : rank_(rank), sockets_(std::move(sockets)), monitor_(sockets_) {}

PeerLinks::~PeerLinks() {
  // Closing alone would tell nobody as long as a forked child holds the sockets too.
  for (UniqueFd const& socket : sockets_)
    if (socket) ::shutdown(socket.get(), SHUT_RDWR);
}

std::vector<Contribution> PeerLinks::exchange(CollectiveCall call, std::span<std::byte const> mine, int fd,
                                              Deadline const& deadline) {
  if (failed_)
    throw_again(*failed_, fmt::format("{}: an earlier call failed: {}", name_of(call.kind), failed_->what()));
  try {
    return PeerExchange(sockets_, rank_, monitor_).run(call, mine, fd, deadline);
  } catch (Error const& error) {
    failed_ = error;
    throw;
  }
}

}  // namespace switchyard
