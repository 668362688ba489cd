// A kernel whose threads push commands.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "engine/cuda/host/command_ring.hpp"

namespace switchyard::cuda {

struct PushLoad {
  int blocks = 1;
  int pushers = 1;           // threads of a block
  std::size_t commands = 1;  // of a thread
};

struct PushArgs {
  std::uint64_t* notes;    // a word for each command, which its thread writes before
  std::uint32_t* gave_up;  // counts threads that waited in vain
  std::uint64_t patience_ns;
};

// A thread's n-th command says who it is, in its upper half, and n. Its word in `notes` is the complement of that.
cudaError_t launch_push_all(CommandRingView const& ring, PushLoad const& load, PushArgs const& args);

}  // namespace switchyard::cuda
