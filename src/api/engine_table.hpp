// The engines of this build. What is above the face asks here, and nowhere else, what a build or a machine has.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "call/gpu_tools.hpp"
#include "call/low_latency_engine.hpp"
#include "call/throughput_engine.hpp"
#include "job/job.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

struct EngineRow {
  EngineKind kind;
  std::string_view name;
  // Why this machine cannot run it; empty: it can.
  std::string (*why_unusable)();
  std::shared_ptr<detail::ThroughputEngine> (*make_throughput)(Communicator const&, BufferOptions const&);
  std::shared_ptr<detail::LowLatencyEngine> (*make_low_latency)(Communicator const&, LowLatencyOptions const&);
  GpuTools const& (*gpu_tools)() noexcept;  // null: it runs on no GPU
};

// Why no buffer can run on that engine here: this build lacks it, or this machine cannot run it. Empty: it can.
std::string why_no_engine(EngineKind kind);

// Collective: all ranks take the same engine, or all throw. `options` is the type that `wish` is a field of; it
// goes into the error.
EngineRow const& choose_engine(Job& job, std::string_view options, EngineKind wish);

// Null in a build whose engines run on no GPU.
GpuTools const* gpu_tools() noexcept;
// For callers that have a buffer on a GPU. Throws Unsupported where gpu_tools() is null.
GpuTools const& require_gpu_tools();

}  // namespace switchyard
