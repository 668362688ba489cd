#include "job/job.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/random.hpp"
#include "base/refusal.hpp"
#include "job/discovery.hpp"
#include "job/message.hpp"
#include "job/rails.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

NodeMembers members_of(Topology const& topology, int node) {
  NodeMembers members{.ranks = {}, .key = fmt::format("node/{}", node)};
  for (int const rank : topology.ranks_of(node))
    members.ranks.push_back({.rank = rank, .node = topology.num_nodes() == 1 ? -1 : node});
  return members;
}

// A secret that rank 0 makes, for jobs whose store nobody else sees: ranks that are threads of one process.
Key key_from(Store& store, int rank, Deadline const& deadline) {
  constexpr std::string_view name = "job/key";
  Mac bytes{};
  if (rank == 0) {
    fill_random(bytes);
    store.set(name, bytes);
  }
  auto const seen = store.get(name, deadline);
  require(seen.size() == bytes.size(), "{}: expected {} bytes, seen {}", name, bytes.size(), seen.size());
  std::ranges::copy(seen, bytes.begin());
  return Key(bytes);
}

Topology discovered(Store* store, JobTerms const& terms) {
  require(store != nullptr, "store: expected one, seen none");
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
  Key const key = terms.key ? *terms.key : key_from(*store, rank_, deadline);
  rails_ = connect_rails({.topology = topology_,
                          .rank = rank_,
                          .node = *node_,
                          .store = *store,
                          .key = key,
                          .address = terms.address.empty() ? store->own_address() : terms.address},
                         deadline);
  // After this nobody needs the store, which goes with `store` here. So rank 0, which may be serving it, stops
  // listening and is free to leave.
  barrier();
}

Job::~Job() = default;

void Job::require_one_node(std::string_view what) const {
  if (topology_.num_nodes() != 1)
    throw Unsupported(fmt::format("{}: expected all ranks of the job on one node so far, seen {} nodes", what,
                                  topology_.num_nodes()),
                      {.rank = rank_});
}

void Job::tolerate_loss(bool tolerated) noexcept {
  tolerates_loss_ = tolerated;
  node_->tolerate_loss(tolerated);
  if (rails_) rails_->tolerate_loss(tolerated);
}

std::vector<std::vector<std::byte>> Job::all_gather(std::span<std::byte const> mine) {
  require(mine.size() <= max_message_bytes, "all_gather: expected at most {} bytes, seen {}", max_message_bytes,
          mine.size());
  if (rails_) return gather_over_nodes(Collective::all_gather, mine);
  auto all = node_->all_gather(mine);
  for (int rank = 0; rank < size(); ++rank) absent_[static_cast<std::size_t>(rank)] = node_->is_absent(rank);
  return all;
}

void Job::barrier() {
  if (rails_) {
    gather_over_nodes(Collective::barrier, {});
    return;
  }
  node_->barrier();
  for (int rank = 0; rank < size(); ++rank) absent_[static_cast<std::size_t>(rank)] = node_->is_absent(rank);
}

struct Job::Heard {
  std::vector<Contribution> contributions{};  // by neighbour
  std::optional<Error> failure{};
};

// A rank that hears nothing says so to the others of its node, who would otherwise take it for the one that is
// late.
Job::Heard Job::hear_rails(CollectiveCall call, std::span<std::byte const> mine) {
  try {
    call.on_held_up = [this](Member const& culprit) { node_->say_held_up(culprit); };
    return {.contributions = rails_->exchange(call, mine, -1, Deadline(timeout_))};
  } catch (Error const& error) {
    return {.contributions = {}, .failure = error};
  }
}

std::vector<std::vector<std::byte>> Job::gather_over_nodes(Collective kind, std::span<std::byte const> mine) {
  Heard heard = hear_rails({kind, sequence_++}, mine);
  MessageWriter pack;
  pack.put(heard.failure ? static_cast<std::int32_t>(heard.failure->code()) : std::int32_t{0});
  if (heard.failure) {
    pack.put(static_cast<std::int32_t>(heard.failure->peer()));
    pack.put_text(heard.failure->phase());
    pack.put_text(heard.failure->what());
  } else {
    pack.put(static_cast<std::int32_t>(rank_));
    pack.put_bytes(mine);
    for (std::size_t i = 0; i < heard.contributions.size(); ++i) {
      int const neighbour = rails_->members()[i].rank;
      bool const speaks_here = topology_.rail_peer(neighbour, topology_.node_of(rank_)) == rank_;
      if (!speaks_here || rails_->is_absent(static_cast<int>(i))) continue;
      pack.put(static_cast<std::int32_t>(neighbour));
      pack.put_bytes(heard.contributions[i].bytes);
    }
  }
  auto const packs = gather_packs(pack.bytes());
  std::vector<std::vector<std::byte>> all(static_cast<std::size_t>(size()));
  std::vector<bool> found(static_cast<std::size_t>(size()), false);
  for (auto const& each : packs)
    if (!each.empty()) take_over(each, all, found);
  note_absent(found);
  return all;
}

// Ranks of other nodes may already wait for this one in the next collective, so they learn why it does not come.
std::vector<std::vector<std::byte>> Job::gather_packs(std::span<std::byte const> mine) {
  try {
    return node_->all_gather(mine, (max_message_bytes + 1024) * static_cast<std::size_t>(size()),
                             [this](Member const& culprit) { rails_->say_held_up(culprit); });
  } catch (Error const& error) {
    rails_->say_failed(error);
    throw;
  }
}

// What a rank of this node has heard. It may have come from another node, so it is checked.
void Job::take_over(std::span<std::byte const> pack, std::vector<std::vector<std::byte>>& all,
                    std::vector<bool>& found) const {
  MessageReader message(pack, "a collective's message between nodes");
  auto const code = message.get<std::int32_t>();
  if (code != 0) {
    auto const peer = message.get<std::int32_t>();
    std::string const phase = message.get_text();
    throw_error(static_cast<ErrorCode>(code), message.get_text(), {.rank = rank_, .peer = peer, .phase = phase});
  }
  while (!message.at_end()) {
    auto const rank = message.get<std::int32_t>();
    require(rank >= 0 && rank < size(), "a collective's message between nodes: expected a rank in 0..{}, seen {}",
            size() - 1, rank);
    auto const bytes = message.get_bytes();
    all[static_cast<std::size_t>(rank)].assign(bytes.begin(), bytes.end());
    found[static_cast<std::size_t>(rank)] = true;
  }
}

void Job::note_absent(std::vector<bool> const& found) {
  for (int rank = 0; rank < size(); ++rank) {
    bool const there = found[static_cast<std::size_t>(rank)];
    if (!there && !tolerates_loss_)
      throw SystemError(fmt::format("rank {}: nobody brought what rank {} did", rank_, rank), {.rank = rank_});
    if (!there) absent_[static_cast<std::size_t>(rank)] = true;
  }
}

}  // namespace switchyard
