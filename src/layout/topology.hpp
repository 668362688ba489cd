// Which ranks make up a node.
#pragma once

namespace switchyard {

// Ranks of one node: they map each other's memory, and masks of them fit into 64 bits.
inline constexpr int max_node_ranks = 64;

}  // namespace switchyard
