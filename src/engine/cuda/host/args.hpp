// What kernels of both modes take: plain structs that host code fills in and kernels read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "control/signal_delay.hpp"
#include "engine/cuda/host/mailbox.hpp"
#include "layout/device_control.hpp"
#include "switchyard/dtype.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::cuda {

// The segments of all ranks, as this rank's GPU maps them.
struct Peers {
  std::byte* segment[max_node_ranks];
  std::uint64_t heap_bytes[max_node_ranks];  // what they may grow to
  DeviceControlLayout control;
  int rank;
  int num_ranks;
};

struct Waiting {
  Mailbox* mailbox;  // as the GPU maps it
  std::uint64_t timeout_ns;
  std::uint64_t call = 0;  // a number that goes into the trouble that the kernel reports
  SignalDelays delays{};   // of tests
};

// A 2-D tensor of 64-bit or 32-bit integers. Strides are in elements.
struct IdView {
  void const* data;
  std::int64_t row_stride;
  std::int64_t column_stride;
  bool wide;  // the integers have 64 bits
};

inline IdView view_of_ids(ConstTensorView const& ids) {
  if (!ids.given()) return {};
  return {.data = ids.data,
          .row_stride = ids.stride(0),
          .column_stride = ids.stride(1),
          .wide = ids.dtype == DType::i64};
}

// A 2-D tensor of f32. Strides are in elements.
struct WeightView {
  float const* data;  // null when there is none
  std::int64_t row_stride;
  std::int64_t column_stride;
};

inline WeightView view_of_weights(ConstTensorView const& weights) {
  if (!weights.given()) return {};
  return {.data = static_cast<float const*>(weights.data),
          .row_stride = weights.stride(0),
          .column_stride = weights.stride(1)};
}

struct GateArgs {
  Peers peers;
  Waiting waiting;
  std::uint64_t round;    // of gates, from 1; 0: the kernel counts itself, so that replays of a graph count
  std::uint64_t hold_ns;  // how long the gate stays closed after the last rank has come
  bool one_clock;         // all ranks share one GPU, and so its clock
};

}  // namespace switchyard::cuda
