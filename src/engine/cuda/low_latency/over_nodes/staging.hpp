// Pinned memory through which the tensors of low-latency calls over nodes go, and what is copied between it and the
// GPU. A call's inputs are packed here, where the host's engine reads them; what it brings, a kernel takes from its
// slots, which are pinned, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "call/low_latency.hpp"
#include "engine/cuda/host/pinned_memory.hpp"
#include "engine/cuda/low_latency/over_nodes/copies.hpp"
#include "layout/slots.hpp"

namespace switchyard::cuda {

// Of one frame: what its dispatch and its combine have under way.
struct StagedFrame {
  HostResult* result = nullptr;
  std::int32_t* counts = nullptr;  // of the result, as the host has checked them: [L] or [R]
  std::byte* x = nullptr;
  std::byte* scales = nullptr;
  std::byte* topk_idx = nullptr;
  std::byte* weights = nullptr;
  std::int32_t* received_per_expert = nullptr;  // [L]
  std::int64_t* wait_ns = nullptr;              // [R]
  std::byte* combine_weights = nullptr;
  std::byte* out = nullptr;
  std::int64_t* combine_wait_ns = nullptr;  // [R]
};

struct StagingSizes {
  SlotSizes slots;
  std::int64_t hidden = 0;
  int local_experts = 0;
};

class Staging {
 public:
  explicit Staging(StagingSizes const& sizes);

  [[nodiscard]] StagedFrame const& frame(int which) const noexcept {
    return frames_[static_cast<std::size_t>(which)];
  }
  [[nodiscard]] CallEnd& end() const noexcept { return *end_; }
  [[nodiscard]] StagingSizes const& sizes() const noexcept { return sizes_; }

 private:
  StagingSizes sizes_;
  PinnedMemory memory_;
  CallEnd* end_ = nullptr;
  std::vector<StagedFrame> frames_;
};

// The call that the host's engine makes: its tensors lie in the frame. What the result is, is not among them.
LowLatencyDispatchArgs on_host(LowLatencyDispatchArgs const& args, StagedFrame const& frame);
// The same of a combine, without its handle; x is that of `x`.
LowLatencyCombineArgs on_host(LowLatencyCombineArgs const& args, StagedFrame const& frame,
                              ConstTensorView const& x);

// From the caller's tensors to the frame.
CopyArgs inputs_to_host(LowLatencyDispatchArgs const& args, StagedFrame const& frame);
// The rows that were received, from the outputs of the caller's experts: to the host's outputs, or to `elsewhere`.
CopyArgs outputs_to_host(LowLatencyCombineArgs const& args, StagedFrame const& frame, std::uint64_t use,
                         std::byte* elsewhere);
// A result, from the host's slots to `received`, and what the caller's counters gain.
struct ResultCopy {
  LowLatencyReceived const& received;
  LowLatencyDispatchArgs const& args;
  StagedFrame const& frame;
  std::uint64_t use;
  CallEnd& end;
};
CopyArgs result_to_device(ResultCopy const& copy);
CopyArgs sums_to_device(LowLatencyCombineArgs const& args, StagedFrame const& frame, CallEnd& end);

}  // namespace switchyard::cuda
