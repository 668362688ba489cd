// Makes and exchanges the host segments of a buffer: the collective part of its constructor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "memory/symmetric_heap.hpp"
#include "node/node.hpp"
#include "node/rank_group.hpp"
#include "plan/buffer_plan.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

struct ConnectedHeap {
  std::shared_ptr<SymmetricHeap> heap;
  std::uint64_t buffer_id = 0;  // random; each rank has its own
};

// An option that must be equal on all ranks.
struct SizeOption {
  std::string_view name;
  std::int64_t value = 0;
};
struct SizeOptions {
  std::string_view type;                // the type that they are fields of; it goes into the error
  std::span<SizeOption const> options;  // 8 at most
  std::string_view to_lower;            // what makes segments smaller, for the error when one cannot be mapped
};

// Collective. Checks that all ranks pass equal sizes, then makes this rank's segment and maps those of the ranks of
// this node. Throws the same error on every rank.
ConnectedHeap connect_heap(RankGroup& job, Node& node, SizeOptions const& options, BufferPlan const& plan);
ConnectedHeap connect_heap(RankGroup& job, Node& node, BufferOptions const& options, BufferPlan const& plan);

}  // namespace switchyard
