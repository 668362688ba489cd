#include "node/node.hpp"

#include <fcntl.h>

#include "base/check.hpp"
#include "layout/topology.hpp"
#include "node/peer_links.hpp"
#include "node/peer_mesh.hpp"

namespace switchyard {

// NOLINTNEXTLINE(performance-unnecessary-value-param): by value, because the store must go when this returns.
Node::Node(std::shared_ptr<Store> store, int rank, int size, std::chrono::milliseconds timeout)
    : rank_(rank), size_(size), timeout_(timeout) {
  require(store != nullptr, "store: expected one, seen none");
  // After this nobody needs the store, which goes with `store` here. So rank 0, which may be serving it, stops
  // listening and is free to leave.
  connect(*store, {.ranks = members_of_one_node(size), .key = "node"});
}

Node::Node(Store& store, NodeMembers const& members, int rank, std::chrono::milliseconds timeout)
    : rank_(rank), size_(static_cast<int>(members.ranks.size())), timeout_(timeout) {
  connect(store, members);
}

void Node::connect(Store& store, NodeMembers const& members) {
  require(size_ >= 1 && size_ <= max_node_ranks, "ranks of a node: expected 1 to {}, seen {}", max_node_ranks,
          size_);
  require(rank_ >= 0 && rank_ < size_, "rank: expected 0 to {}, seen {}", size_ - 1, rank_);
  require(timeout_.count() > 0, "timeout: expected more than 0 ms, seen {}", timeout_.count());
  auto const self = static_cast<std::size_t>(rank_);
  links_ = std::make_unique<PeerLinks>(connect_mesh(store, members, rank_, Deadline(timeout_)), members.ranks[self],
                                       members.ranks);
  barrier();
}

Node::~Node() = default;

std::vector<Member> const& Node::members() const noexcept {
  return links_->members();
}

std::vector<std::vector<std::byte>> Node::all_gather(std::span<std::byte const> mine) {
  return all_gather(mine, {});
}

std::vector<std::vector<std::byte>> Node::all_gather(std::span<std::byte const> mine, GatherTerms const& terms) {
  std::size_t const most = terms.most > 0 ? terms.most : max_message_bytes;
  require(mine.size() <= most, "all_gather: expected at most {} bytes, seen {}", most, mine.size());
  auto all = links_->exchange({Collective::all_gather, sequence_++, most, terms.on_held_up, terms.silence_text},
                              mine, -1, Deadline(terms.waits_elsewhere ? 2 * timeout_ : timeout_));
  std::vector<std::vector<std::byte>> values;
  for (Contribution& each : all) values.push_back(std::move(each.bytes));
  values[static_cast<std::size_t>(rank_)].assign(mine.begin(), mine.end());
  return values;
}

void Node::say_held_up(Member const& culprit) noexcept {
  links_->say_held_up(culprit);
}

void Node::barrier() {
  links_->exchange({Collective::barrier, sequence_++}, {}, -1, Deadline(timeout_));
}

std::vector<UniqueFd> Node::exchange_fd(int fd) {
  UniqueFd own(check_call(::fcntl(fd, F_DUPFD_CLOEXEC, 0), "exchange_fd: duplicate the descriptor"));
  auto all = links_->exchange({Collective::exchange_fd, sequence_++}, {}, fd, Deadline(timeout_));
  std::vector<UniqueFd> fds;
  for (Contribution& each : all) fds.push_back(std::move(each.fd));
  fds[static_cast<std::size_t>(rank_)] = std::move(own);
  return fds;
}

void Node::tolerate_loss(bool tolerated) noexcept {
  links_->tolerate_loss(tolerated);
}

bool Node::is_absent(int rank) const noexcept {
  return links_->is_absent(rank);
}

bool Node::is_lost(int peer) const noexcept {
  return links_->is_lost(peer);
}

}  // namespace switchyard
