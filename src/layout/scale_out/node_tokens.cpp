#include "layout/scale_out/node_tokens.hpp"

#include "base/check.hpp"
#include "layout/receive_block.hpp"
#include "layout/scale_out/node_experts.hpp"

namespace switchyard::scale_out {

namespace {

// Sorts what tokens need by node. Tokens come in ascending order.
class Collector {
 public:
  Collector(Topology const& topology, ExpertSplit const& experts)
      : topology_(topology), last_token_(static_cast<std::size_t>(topology.num_ranks()), -1) {
    for (int node = 0; node < topology.num_nodes(); ++node) {
      NodeExperts const there(topology, experts, node);
      NodeTokens& to = nodes_.emplace_back();
      to.counts.rows.resize(static_cast<std::size_t>(there.num_ranks()));
      to.counts.slots.resize(static_cast<std::size_t>(there.count()));
      for (int const rank : topology.ranks_of(node)) add_places(there, experts, rank);
    }
  }

  void add_slot(std::int64_t token, std::int64_t slot, std::int64_t expert) {
    Place const place = places_[static_cast<std::size_t>(expert)];
    NodeTokens& to = add_rank(token, place.rank);
    to.masks.back() |= std::uint64_t{1} << slot;
    to.experts.push_back(place.number);
    ++to.counts.slots[place.number];
  }

  void add_route(std::int64_t token, int rank) {
    add_rank(token, rank).masks.back() |= mask_of(topology_.local_rank_of(rank));
  }

  std::vector<NodeTokens> take() { return std::move(nodes_); }

 private:
  struct Place {
    std::int16_t rank = 0;
    std::uint16_t number = 0;  // within the rank's node
  };

  void add_places(NodeExperts const& there, ExpertSplit const& experts, int rank) {
    places_.resize(static_cast<std::size_t>(experts.num_experts()));
    int const first = experts.first(rank);
    int const offset = there.first(topology_.local_rank_of(rank)) - first;
    for (int expert = first; expert < first + experts.count(rank); ++expert) {
      places_[static_cast<std::size_t>(expert)] = {.rank = static_cast<std::int16_t>(rank),
                                                   .number = static_cast<std::uint16_t>(expert + offset)};
    }
  }

  // Notes that the token goes to the rank, and so to its node.
  NodeTokens& add_rank(std::int64_t token, int rank) {
    NodeTokens& to = nodes_[static_cast<std::size_t>(topology_.node_of(rank))];
    std::int64_t& last = last_token_[static_cast<std::size_t>(rank)];
    if (last == token) return to;
    last = token;
    ++to.counts.rows[static_cast<std::size_t>(topology_.local_rank_of(rank))];
    if (to.tokens.empty() || to.tokens.back() != token) {
      to.tokens.push_back(static_cast<std::int32_t>(token));
      to.masks.push_back(0);
      ++to.counts.tokens;
    }
    return to;
  }

  Topology const& topology_;
  std::vector<std::int64_t> last_token_;  // by rank
  std::vector<Place> places_;             // by expert of the job
  std::vector<NodeTokens> nodes_;
};

void check_tokens(std::int64_t tokens) {
  require(tokens <= max_result_rows, "tokens of a source: expected at most {}, seen {}", max_result_rows, tokens);
}

}  // namespace

std::vector<NodeTokens> tokens_by_node(ConstTensorView topk_idx, Topology const& topology,
                                       ExpertSplit const& experts) {
  check_tokens(topk_idx.size(0));
  require(topk_idx.size(1) <= max_top_k, "topk_idx: dimension 1: expected at most {}, seen {}", max_top_k,
          topk_idx.size(1));
  Collector collector(topology, experts);
  for (std::int64_t token = 0; token < topk_idx.size(0); ++token) {
    for (std::int64_t slot = 0; slot < topk_idx.size(1); ++slot) {
      std::int64_t const expert = topk_at(topk_idx, token, slot);
      if (expert == -1) continue;
      check_expert(token, slot, expert, experts.num_experts());
      collector.add_slot(token, slot, expert);
    }
  }
  return collector.take();
}

std::vector<NodeTokens> tokens_by_node(RouteTable const& routes, Topology const& topology,
                                       ExpertSplit const& experts) {
  check_tokens(routes.num_tokens());
  Collector collector(topology, experts);
  for (std::int64_t token = 0; token < routes.num_tokens(); ++token) {
    for (Route const& route : routes.of(token)) collector.add_route(token, route.rank);
  }
  return collector.take();
}

}  // namespace switchyard::scale_out
