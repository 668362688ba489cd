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
  int num_ranks = 1;    // of the job
  int local_ranks = 1;  // of this node
  int served = 1;       // ranks of the job that a local rank serves at most (layout/served_ranks.hpp)
  int cores = 1;        // of this node
};

struct BufferPlan {
  ControlLayout control;
  std::size_t heap_bytes = 0;
  bool heap_given = false;        // somebody set this limit
  std::size_t segment_bytes = 0;  // control and heap, whole huge pages
  int num_workers = 1;
  std::chrono::microseconds spin{0};
  bool yields = false;  // see WaitPolicy
};

// What bounds heaps of host memory.
struct HostBounds {
  std::size_t memory = 0;         // bytes that the machine has
  std::size_t address_space = 0;  // bytes that a process may still map: the least of all ranks, the same on all
};

// spin_us < 0: chosen here.
BufferPlan plan_buffer(BufferOptions const& options, MachineShare const& share, std::int64_t spin_us);

// The same plan with a heap of so many bytes, a multiple of a page.
BufferPlan with_heap(BufferPlan plan, std::size_t heap_bytes);

// What a heap of host memory may have: addresses for all memory of the machine, but no more than its share of the
// address space: every process maps the segments of all ranks, and has use for half of what it may map.
std::size_t most_host_heap(BufferPlan const& plan, HostBounds const& bounds, int num_ranks);

// The plan of a buffer whose heap is host memory. A heap without a limit gets most_host_heap().
BufferPlan fit_into_host(BufferPlan plan, HostBounds const& bounds, int num_ranks);

}  // namespace switchyard
