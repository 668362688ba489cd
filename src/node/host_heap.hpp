// Making and exchanging the segments of a buffer: its constructor's collective part.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "memory/symmetric_heap.hpp"
#include "node/job.hpp"
#include "plan/buffer_plan.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

struct ConnectedHeap {
  std::shared_ptr<SymmetricHeap> heap;
  std::uint64_t buffer_id = 0;  // random, of this rank
};

// Options that must be equal on all ranks; 8 at most.
struct SizeOption {
  std::string_view name;
  std::int64_t value = 0;
};
struct SizeOptions {
  std::string_view type;
  std::span<SizeOption const> options;
};

// Collective. Checks that all ranks pass equal sizes; throws the same error on every rank.
ConnectedHeap connect_heap(Job& job, SizeOptions const& options, BufferPlan const& plan);
ConnectedHeap connect_heap(Job& job, BufferOptions const& options, BufferPlan const& plan);

}  // namespace switchyard
