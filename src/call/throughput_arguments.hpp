// Checking what the caller passed, before anything moves. All throw InvalidArgument, naming the argument, what
// was expected and what was seen.
#pragma once

#include "layout/routing.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// What the checks need to know of the buffer.
struct BufferFacts {
  BufferOptions options;
  int num_ranks = 1;
  std::uint64_t buffer_id = 0;
  Device device = Device::cpu;
};

void check_options(BufferOptions const& options, int num_ranks);
void check_topk_idx(ConstTensorView const& topk_idx, BufferFacts const& buffer);
void check_dispatch(DispatchArgs const& args, BufferFacts const& buffer);
void check_combine(CombineArgs const& args, BufferFacts const& buffer);

}  // namespace switchyard
