// Buffer on the CUDA engine in a job of several nodes.
#pragma once

#include <memory>

#include "call/throughput_engine.hpp"

namespace switchyard::cuda {

// Collective; throws on every rank alike.
std::shared_ptr<detail::ThroughputEngine> make_throughput_over_nodes(Communicator const& communicator,
                                                                     BufferOptions const& options);

}  // namespace switchyard::cuda
