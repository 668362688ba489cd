#include "job/job.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/random.hpp"
#include "job/discovery.hpp"
#include "job/failure.hpp"
#include "job/message.hpp"
#include "job/rails.hpp"

namespace switchyard {

namespace {

NodeMembers members_of(Topology const& topology, int node) {
  NodeMembers members{.ranks = {}, .key = fmt::format("node/{}", node)};
  for (int const rank : topology.ranks_of(node))
    members.ranks.push_back({.rank = rank, .node = topology.num_nodes() == 1 ? -1 : node});
  return members;
}

// What ranks of different nodes show one another. Rank 0 mixes something new in, so that a rank of an earlier job
// with the same token is refused. Without a token that alone is the secret: then ranks are threads of one process,
// and nobody else sees the store.
Key key_of(std::optional<Key> const& token, Store& store, int rank, Deadline const& deadline) {
  constexpr std::string_view name = "job/nonce";
  constexpr std::string_view purpose = "switchyard between nodes";
  Mac bytes{};
  if (rank == 0) {
    fill_random(bytes);
    store.set(name, bytes);
  }
  auto const seen = store.get(name, deadline);
  require(seen.size() == bytes.size(), "{}: expected {} bytes, seen {}", name, bytes.size(), seen.size());
  std::ranges::copy(seen, bytes.begin());
  return token ? Key(token->mac({std::as_bytes(std::span(purpose)), bytes})) : Key(bytes);
}

Topology discovered(Store* store, JobTerms const& terms) {
  if (store == nullptr) throw InvalidArgument("store: expected one, seen none");
  require(terms.size >= 1 && terms.size <= max_ranks, "ranks of a job: expected 1 to {}, seen {}", max_ranks,
          terms.size);
  require(terms.rank >= 0 && terms.rank < terms.size, "rank: expected 0 to {}, seen {}", terms.size - 1,
          terms.rank);
  require(terms.timeout.count() > 0, "timeout: expected more than 0 ms, seen {}", terms.timeout.count());
  if (terms.size == 1) return Topology(std::vector{0});
  return discover_nodes(*store, {.rank = terms.rank, .size = terms.size, .node = terms.node},
                        Deadline(terms.timeout));
}

}  // namespace

// NOLINTNEXTLINE(performance-unnecessary-value-param): by value, because the store must go when this returns.
Job::Job(std::shared_ptr<Store> store, JobTerms const& terms)
    : topology_(discovered(store.get(), terms)),
      rank_(terms.rank),
      timeout_(terms.timeout),
      absent_(static_cast<std::size_t>(terms.size), false) {
  int const here = topology_.node_of(rank_);
  node_ = std::make_shared<Node>(*store, members_of(topology_, here), topology_.local_rank_of(rank_), timeout_);
  if (topology_.num_nodes() == 1) return;
  Deadline const deadline(timeout_);
  key_ = key_of(terms.key, *store, rank_, deadline);
  address_ = terms.address.empty() ? store->own_address() : terms.address;
  rails_ = connect_rails(
      {.topology = topology_, .rank = rank_, .node = *node_, .store = *store, .key = *key_, .address = address_},
      deadline);
  // After this nobody needs the store, which goes with `store` here. So rank 0, which may be serving it, stops
  // listening and is free to leave.
  barrier();
}

Job::~Job() = default;

bool Job::is_lost(int rank) const noexcept {
  if (rank < 0 || rank >= size()) return false;
  if (topology_.node_of(rank) == topology_.node_of(rank_)) return node_->is_lost(topology_.local_rank_of(rank));
  int const rail = rail_of(rank);
  return rail >= 0 && rails_->is_lost(rail);
}

// Of all ranks of a node the machine is one, so this rank's rail peer there answers for those that it has no
// connection to.
std::string Job::silence_text(int rank) const {
  if (rank < 0 || rank >= size()) return {};
  int const node = topology_.node_of(rank);
  if (node == topology_.node_of(rank_)) return {};
  int const rail = rail_of(rank);
  return rails_->silence_text(rail >= 0 ? rail : rail_of(topology_.rail_peer(rank_, node)));
}

int Job::rail_of(int rank) const noexcept {
  if (!rails_) return -1;
  auto const& neighbours = rails_->members();  // in the order of ranks
  auto const found = std::ranges::lower_bound(neighbours, rank, {}, &Member::rank);
  return found != neighbours.end() && found->rank == rank ? static_cast<int>(found - neighbours.begin()) : -1;
}

void Job::tolerate_loss(bool tolerated) {
  if (tolerated && topology_.num_nodes() != 1)
    throw Unsupported(
        fmt::format("a job that goes on without ranks that are lost: expected all ranks of the job on "
                    "one node so far, seen {} nodes",
                    topology_.num_nodes()),
        {.rank = rank_});
  node_->tolerate_loss(tolerated);
}

std::vector<std::vector<std::byte>> Job::all_gather(std::span<std::byte const> mine) {
  require(mine.size() <= max_message_bytes, "all_gather: expected at most {} bytes, seen {}", max_message_bytes,
          mine.size());
  if (rails_) return gather_over_nodes(Collective::all_gather, mine);
  auto all = node_->all_gather(mine);
  note_absent();
  return all;
}

void Job::barrier() {
  if (rails_) {
    gather_over_nodes(Collective::barrier, {});
    return;
  }
  node_->barrier();
  note_absent();
}

void Job::note_absent() {
  for (int rank = 0; rank < size(); ++rank) absent_[static_cast<std::size_t>(rank)] = node_->is_absent(rank);
}

// Whatever ends it, ranks of other nodes learn of it along the rails: some may be through already, and wait for
// this rank in the next collective.
std::vector<std::vector<std::byte>> Job::gather_over_nodes(Collective kind, std::span<std::byte const> mine) {
  if (failed_)
    throw_error(failed_->code(),
                fmt::format("{}: an earlier call failed: {}; make a new communicator on all ranks", name_of(kind),
                            failed_->what()),
                {.rank = failed_->rank(), .peer = failed_->peer(), .phase = failed_->phase()});
  try {
    return exchange_parts({.kind = kind, .sequence = sequence_++}, mine);
  } catch (Error const& error) {
    failed_ = error;
    rails_->say_failed(error);
    throw;
  }
}

struct Job::Heard {
  std::vector<Contribution> contributions{};  // by neighbour
  std::optional<Error> failure{};
};

std::vector<std::vector<std::byte>> Job::exchange_parts(CollectiveCall const& call,
                                                        std::span<std::byte const> mine) {
  Heard const heard = hear_rails(call, mine);
  Node::GatherTerms const terms{.most = (max_message_bytes + 1024) * static_cast<std::size_t>(size()),
                                .on_held_up = [this](Member const& culprit) { rails_->say_held_up(culprit); },
                                .silence_text = [this](int rank) { return silence_text(rank); }};
  auto const packs = gathered_or(heard.failure, [&] { return node_->all_gather(pack_of(heard, mine), terms); });
  std::vector<std::vector<std::byte>> all(static_cast<std::size_t>(size()));
  std::vector<bool> found(static_cast<std::size_t>(size()), false);
  for (auto const& each : packs) take_over(each, all, found);
  check_all_found(found);
  return all;
}

// A rank that hears nothing says so to the others of its node, who would otherwise take it for the one that is
// late.
Job::Heard Job::hear_rails(CollectiveCall call, std::span<std::byte const> mine) {
  call.on_held_up = [this](Member const& culprit) { node_->say_held_up(culprit); };
  call.silence_text = [this](int rank) { return silence_text(rank); };
  Heard heard;
  heard.failure = failure_of([&] { heard.contributions = rails_->exchange(call, mine, -1, Deadline(timeout_)); });
  return heard;
}

// The own part, and those of other nodes' ranks that speak to this node through this rank.
std::vector<std::byte> Job::pack_of(Heard const& heard, std::span<std::byte const> mine) const {
  MessageWriter pack;
  put_failure(pack, heard.failure);
  if (heard.failure) return pack.bytes();
  pack.put(static_cast<std::int32_t>(rank_));
  pack.put_bytes(mine);
  for (std::size_t i = 0; i < heard.contributions.size(); ++i) {
    int const neighbour = rails_->members()[i].rank;
    if (topology_.rail_peer(neighbour, topology_.node_of(rank_)) != rank_) continue;
    pack.put(static_cast<std::int32_t>(neighbour));
    pack.put_bytes(heard.contributions[i].bytes);
  }
  return pack.bytes();
}

// What a rank of this node has heard. It may have come from another node, so it is checked.
void Job::take_over(std::span<std::byte const> pack, std::vector<std::vector<std::byte>>& all,
                    std::vector<bool>& found) const {
  MessageReader message(pack, "a collective's message between nodes");
  throw_failure_in(message, rank_);
  while (!message.at_end()) {
    auto const rank = message.get<std::int32_t>();
    require(rank >= 0 && rank < size(), "a collective's message between nodes: expected a rank in 0..{}, seen {}",
            size() - 1, rank);
    auto const bytes = message.get_bytes();
    all[static_cast<std::size_t>(rank)].assign(bytes.begin(), bytes.end());
    found[static_cast<std::size_t>(rank)] = true;
  }
}

void Job::check_all_found(std::vector<bool> const& found) const {
  auto const missing = std::ranges::find(found, false);
  if (missing == found.end()) return;
  throw SystemError(
      fmt::format("rank {}: no rank of this node has what rank {} brings", rank_, missing - found.begin()),
      {.rank = rank_});
}

}  // namespace switchyard
