// Tests whose ranks play several nodes: SWITCHYARD_TEST_NODES says how many, for every job of the program, or with
// "uneven" that the last rank of each job has a node of its own. Behind it may follow ",faulty": the way between
// them does everything wrong that it may; or ",tight": it has room for one small chunk at a time. Without it jobs
// have one node.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "support/scale.hpp"

namespace switchyard::test {

// By rank. Empty: one node.
inline std::vector<int> played_nodes(int ranks) {
  char const* const setting =
      std::getenv("SWITCHYARD_TEST_NODES");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  std::string wish = setting != nullptr ? setting : "";
  wish = wish.substr(0, wish.find(','));
  if (wish.empty() || ranks == 1) return {};
  std::vector<int> nodes;
  int const count = wish == "uneven" ? 2 : std::min(std::stoi(wish), ranks);
  for (int rank = 0; rank < ranks; ++rank)
    nodes.push_back(wish == "uneven" ? static_cast<int>(rank == ranks - 1) : rank * count / ranks);
  return nodes;
}

// SWITCHYARD_FAULTS of a run with this SWITCHYARD_TEST_SEED. By itself (of 71) 72, which does much of everything:
// it holds nine of ten parts of writes back for up to 30 polls, sends them in 5 pieces and some of these twice, and
// three of ten posts find it busy (transport/faulty/faults.hpp).
inline int seed_of_faults(std::uint64_t test_seed = seed_or(71)) {
  return static_cast<int>(test_seed % 1'000'000) + 1;
}

// Before ranks start: sets what the way between nodes is to be, unless that is set.
inline void play_way() {
  char const* const setting = std::getenv("SWITCHYARD_TEST_NODES");  // NOLINT(concurrency-mt-unsafe)
  std::string const wish = setting != nullptr ? setting : "";
  auto const seed = std::to_string(seed_of_faults());
  // NOLINTBEGIN(concurrency-mt-unsafe)
  if (wish.ends_with(",faulty")) setenv("SWITCHYARD_FAULTS", seed.c_str(), 0);
  if (wish.ends_with(",tight")) setenv("SWITCHYARD_CHUNK_SLOTS", "1", 0);
  if (wish.ends_with(",tight")) setenv("SWITCHYARD_CHUNK_BYTES", "1", 0);
  // NOLINTEND(concurrency-mt-unsafe)
}

// For CommunicatorOptions::node; empty: as the machine says.
inline std::string played_node(int ranks, int rank) {
  auto const nodes = played_nodes(ranks);
  return nodes.empty() ? "" : "node" + std::to_string(nodes[static_cast<std::size_t>(rank)]);
}

// The rank of `node` to which `rank` sends what is for that node: the one with as many ranks of its node before it,
// modulo the node's size.
inline int played_rail_peer(std::vector<int> const& nodes, int rank, int node) {
  auto const before = [&](int of, int end) { return std::count(nodes.begin(), nodes.begin() + end, of); };
  auto const number =
      before(nodes[static_cast<std::size_t>(rank)], rank) % before(node, static_cast<int>(nodes.size()));
  for (int peer = 0;; ++peer)
    if (nodes[static_cast<std::size_t>(peer)] == node && before(node, peer) == number) return peer;
}

using Apart = std::function<bool(int, int)>;

// Which ranks reach each other when some do without one another: over nodes a pair also needs the ranks that pass
// on between them, in both directions.
inline bool are_apart(std::vector<int> const& nodes, Apart const& apart, int a, int b) {
  if (a == b) return false;
  if (apart(a, b)) return true;
  if (nodes.empty() || nodes[static_cast<std::size_t>(a)] == nodes[static_cast<std::size_t>(b)]) return false;
  int const there = played_rail_peer(nodes, a, nodes[static_cast<std::size_t>(b)]);
  int const here = played_rail_peer(nodes, b, nodes[static_cast<std::size_t>(a)]);
  return apart(a, there) || apart(there, b) || apart(b, here) || apart(here, a);
}

}  // namespace switchyard::test
