#include "support/node_job.hpp"

#include <algorithm>
#include <numeric>

#include "layout/routes.hpp"

namespace switchyard::test {

namespace {

std::vector<std::byte> bytes_by_chance(std::uint64_t seed, std::size_t count) {
  Random random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.bits());
  return bytes;
}

std::vector<int> random_nodes(Random& random) {
  std::vector<int> nodes;
  int const count = random.between(1, 4);
  for (int node = 0; node < count; ++node) {
    int const size = random.chance(5) ? 64 : random.one_of({1, 1, 2, 3, 4, 8});
    nodes.insert(nodes.end(), static_cast<std::size_t>(size), node);
  }
  if (random.chance(50)) return nodes;
  for (std::size_t i = nodes.size(); i > 1; --i)
    std::swap(nodes[i - 1], nodes[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  return nodes;
}

// The ids of one token: uniform, mostly of the first experts, one expert in every slot, or hardly any.
void add_ids(Random& random, int kind, NodeJob const& job, std::vector<std::int32_t>& ids) {
  auto const expert = [&] { return static_cast<std::int32_t>(random.below(job.num_experts)); };
  std::int32_t const same = expert();
  for (int slot = 0; slot < job.terms.top_k; ++slot) {
    if (kind == 0) ids.push_back(random.chance(10) ? -1 : expert());
    if (kind == 1) ids.push_back(std::min({expert(), expert(), expert(), expert()}));
    if (kind == 2) ids.push_back(same);
    if (kind == 3) ids.push_back(random.chance(95) ? -1 : expert());
  }
}

void add_source(Random& random, NodeJob& job) {
  bool const idle = random.chance(15);
  std::int64_t const tokens = idle ? 0 : random.below(job.terms.max_tokens + 1);
  job.tokens.push_back(tokens);
  auto& ids = job.ids.emplace_back();
  auto& weights = job.weights.emplace_back();
  auto& in_rank = job.in_rank.emplace_back();
  int const kind = random.between(0, 3);
  for (std::int64_t token = 0; token < tokens; ++token) {
    add_ids(random, kind, job, ids);
    for (int slot = 0; slot < job.terms.top_k; ++slot) weights.push_back(random.real());
    for (int rank = 0; job.by_rank() && rank < job.num_ranks(); ++rank)
      in_rank.push_back(random.chance(kind == 3 ? 3 : 30) ? 1 : 0);
  }
}

std::size_t at(std::int64_t row, std::int64_t width, std::int64_t column) {
  return static_cast<std::size_t>(row * width + column);
}

}  // namespace

NodeJob random_node_job(std::uint64_t seed) {
  Random random(mix(seed, 0x6e6f'6465));
  NodeJob job{.seed = seed};
  job.node_by_rank = random_nodes(random);
  job.num_experts = random.between(1, 3 * job.num_ranks());
  bool const by_rank = random.chance(20);
  job.terms = {.layout = !by_rank && random.chance(40) ? OutputLayout::expanded : OutputLayout::flat,
               .top_k = by_rank ? 0 : random.one_of({1, 2, 3, 7, 8, 9, 16, 17, 33, 64}),
               .weights = !by_rank && random.chance(60),
               .row_bytes = static_cast<std::size_t>(random.between(1, 200)),
               .scale_bytes = random.chance(40) ? 4U * static_cast<std::size_t>(random.between(1, 9)) : 0,
               .max_tokens = random.between(1, 40)};
  for (int source = 0; source < job.num_ranks(); ++source) add_source(random, job);
  return job;
}

ConstTensorView NodeJob::ids_of(int source) const {
  auto const s = static_cast<std::size_t>(source);
  return {ids[s].data(), DType::i32, {tokens[s], terms.top_k}};
}

ConstTensorView NodeJob::weights_of(int source) const {
  auto const s = static_cast<std::size_t>(source);
  return {weights[s].data(), DType::f32, {tokens[s], terms.top_k}};
}

ConstTensorView NodeJob::in_rank_of(int source) const {
  auto const s = static_cast<std::size_t>(source);
  return {in_rank[s].data(), DType::u8, {tokens[s], num_ranks()}};
}

std::vector<scale_out::NodeTokens> NodeJob::tokens_by_node(int source) const {
  if (by_rank()) return scale_out::tokens_by_node(masked_routes(in_rank_of(source)), topology(), experts());
  return scale_out::tokens_by_node(ids_of(source), topology(), experts());
}

std::vector<int> NodeJob::ranks_of(int node) const {
  std::vector<int> ranks;
  for (int rank = 0; rank < num_ranks(); ++rank)
    if (node_by_rank[static_cast<std::size_t>(rank)] == node) ranks.push_back(rank);
  return ranks;
}

int NodeJob::owner(int expert) const {
  int end = 0;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    end += num_experts / num_ranks() + (rank < num_experts % num_ranks() ? 1 : 0);
    if (expert < end) return rank;
  }
  return -1;
}

std::vector<ExpectedToken> NodeJob::expected(int source, int node) const {
  std::vector<ExpectedToken> found;
  auto const s = static_cast<std::size_t>(source);
  for (std::int32_t token = 0; token < tokens[s]; ++token) {
    ExpectedToken here{.token = token};
    for (int slot = 0; slot < terms.top_k; ++slot) {
      int const expert = ids[s][at(token, terms.top_k, slot)];
      if (expert >= 0 && node_by_rank[static_cast<std::size_t>(owner(expert))] == node)
        here.slots.push_back({slot, expert});
    }
    for (int rank = 0; by_rank() && rank < num_ranks(); ++rank) {
      if (in_rank[s][at(token, num_ranks(), rank)] != 0 && node_by_rank[static_cast<std::size_t>(rank)] == node)
        here.slots.push_back({-1, rank});
    }
    if (!here.slots.empty()) found.push_back(here);
  }
  return found;
}

std::vector<std::int32_t> NodeJob::rows(int source, int rank) const {
  std::vector<std::int32_t> found;
  for (ExpectedToken const& token : expected(source, node_by_rank[static_cast<std::size_t>(rank)])) {
    bool const goes = std::ranges::any_of(
        token.slots, [&](NodeSlot const& slot) { return (by_rank() ? slot.target : owner(slot.target)) == rank; });
    if (goes) found.push_back(token.token);
  }
  return found;
}

std::vector<std::pair<std::int32_t, int>> NodeJob::expert_rows(int source, int expert) const {
  std::vector<std::pair<std::int32_t, int>> found;
  for (ExpectedToken const& token : expected(source, node_by_rank[static_cast<std::size_t>(owner(expert))])) {
    for (NodeSlot const& slot : token.slots)
      if (!by_rank() && slot.target == expert) found.emplace_back(token.token, slot.slot);
  }
  return found;
}

std::vector<std::byte> NodeJob::row_of(int source, std::int32_t token) const {
  return bytes_by_chance(mix(seed, std::uint64_t{1}, source, token), terms.row_bytes);
}

std::vector<std::byte> NodeJob::scales_of(int source, std::int32_t token) const {
  return bytes_by_chance(mix(seed, std::uint64_t{2}, source, token), terms.scale_bytes);
}

}  // namespace switchyard::test
