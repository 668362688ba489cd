// What kernels of both modes take: plain structs that host code fills in and kernels read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cuda/host/mailbox.hpp"
#include "layout/device_control.hpp"
#include "switchyard/dtype.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::cuda {

// The segments of all ranks, as this rank's GPU maps them.
struct Peers {
  std::byte* segment[max_node_ranks];
  std::uint64_t heap_bytes[max_node_ranks];
  DeviceControlLayout control;
  int rank;
  int num_ranks;
};

struct Waiting {
  Mailbox* mailbox;
  std::uint64_t timeout_ns;
};

// A 2-D tensor of 64-bit or 32-bit integers; strides in elements.
struct IdView {
  void const* data;
  std::int64_t row_stride;
  std::int64_t column_stride;
  bool wide;  // i64
};

inline IdView view_of_ids(ConstTensorView const& ids) {
  if (!ids.given()) return {};
  return {.data = ids.data,
          .row_stride = ids.stride(0),
          .column_stride = ids.stride(1),
          .wide = ids.dtype == DType::i64};
}

struct WeightView {
  float const* data;  // null: none
  std::int64_t row_stride;
  std::int64_t column_stride;
};

struct GateArgs {
  Peers peers;
  Waiting waiting;
  std::uint64_t round;    // counts from 1; 0: the kernel counts itself
  std::uint64_t hold_ns;  // after the last rank has come
  bool one_clock;         // all ranks share one GPU
};

}  // namespace switchyard::cuda
