// From what a buffer is for to its sizes. Pure functions.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "layout/control.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// What the plan has to know of the machine.
struct MachineShare {
  int num_ranks = 1;
  int cores = 1;
};

struct BufferPlan {
  ControlLayout control;
  std::size_t heap_bytes = 0;
  std::size_t segment_bytes = 0;  // control and heap, whole huge pages
  int num_workers = 1;
  std::chrono::microseconds spin{0};
};

// spin_us < 0: chosen here.
BufferPlan plan_buffer(BufferOptions const& options, MachineShare const& share, std::int64_t spin_us);

// Rows that a rank receives at most from `num_ranks` ranks.
std::int64_t worst_rows(BufferOptions const& options, int num_ranks, OutputLayout layout);

}  // namespace switchyard
