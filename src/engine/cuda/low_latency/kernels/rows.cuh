// Low-latency dispatch: rows of bytes, each read once and written to all of its slots; and f32 scales.
#pragma once

#include "engine/cuda/low_latency/kernels/wave.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

// All threads of a block call this. It brings rows that will be read soon into the L2 cache.
__device__ inline void fetch_rows(ByteRows const& rows, TokenRange const& tokens) {
  constexpr std::uint32_t line = 128;
#pragma unroll 1
  for (std::int64_t token = tokens.begin + warp_of_block(); token < tokens.end; token += slot_warps) {
    std::byte const* const row = rows.from + token * rows.stride;
#pragma unroll 1
    for (std::uint32_t at = lane_of_warp() * line; at < rows.bytes; at += 32 * line) ptx::prefetch(row + at);
  }
}

// One warp sends a piece of a row: `vectors` of each lane, all loaded before any is stored. `to` has a place for
// each slot.
template <typename Vector, int vectors>
__device__ inline void send_piece(SlotDispatchArgs const& args, Wave const& wave, ByteRows const& rows,
                                  std::byte* const* to, int token, std::uint32_t begin) {
  constexpr std::uint32_t step = 32 * sizeof(Vector);
  std::byte const* const from = rows.from + (wave.first + token) * rows.stride;
  std::uint32_t const at = begin + static_cast<std::uint32_t>(lane_of_warp() * sizeof(Vector));
  Vector piece[vectors];
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (at + i * step < rows.bytes) piece[i] = *reinterpret_cast<Vector const*>(from + at + i * step);
  }
  for_slots(args, wave, token, [&](int slot) {
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (at + i * step < rows.bytes) *reinterpret_cast<Vector*>(to[slot] + at + i * step) = piece[i];
    }
  });
}

// All threads of a block call this.
template <typename Vector, int vectors>
__device__ inline void send_pieces(SlotDispatchArgs const& args, Wave const& wave, ByteRows const& rows,
                                   std::byte* const* to) {
  constexpr std::uint32_t piece = vectors * 32 * sizeof(Vector);
  int const pieces = static_cast<int>((rows.bytes + piece - 1) / piece);
#pragma unroll 1
  for (int i = warp_of_block(); i < wave.tokens * pieces; i += slot_warps)
    send_piece<Vector, vectors>(args, wave, rows, to, i / pieces, static_cast<std::uint32_t>(i % pieces) * piece);
}

// All threads of a block call this. It sends the f32 scales that the caller gave with its rows.
__device__ inline void send_given_scales(SlotDispatchArgs const& args, Wave const& wave) {
  int const groups = static_cast<int>(args.scale_bytes / 4);
  std::int64_t const step = scale_step(args);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < wave.tokens * groups; i += slot_threads) {
    int const token = i / groups;
    int const group = i % groups;
    float const scale = args.scales[(wave.first + token) * args.scale_strides[0] + group * args.scale_strides[1]];
    for_slots(args, wave, token,
              [&](int slot) { *reinterpret_cast<float*>(wave.scales[slot] + group * step) = scale; });
  }
}

// What sends the rows of a wave is one of these structs. All threads of a block call their functions: prepare() as
// soon as the wave is known, then send() after place_wave(), or abandon() if the call has failed.

// Rows go from registers to where they belong.
struct DirectRows {
  static constexpr bool bulk = false;
  __device__ static void prepare(SlotDispatchArgs const& args, Wave const& wave) {
    fetch_rows(args.x, {wave.first, wave.first + wave.tokens});
  }
  __device__ static void abandon(Wave const&) {}
};

// Rows and opaque scales suit 16-byte accesses.
struct WideRows : DirectRows {
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    // The rows of few tokens are cut into smaller pieces, so that all warps have some.
    if (wave.tokens * args.row_bytes >= slot_warps * 2048U) {
      send_pieces<uint4, 4>(args, wave, args.x, wave.row);
    } else {
      send_pieces<uint4, 1>(args, wave, args.x, wave.row);
    }
    if (args.scale_rows.bytes > 0) send_pieces<uint4, 1>(args, wave, args.scale_rows, wave.scales);
    if (args.scales != nullptr) send_given_scales(args, wave);
  }
};

// Any rows of bytes.
struct AnyRows : DirectRows {
  __device__ static void send_bytes(SlotDispatchArgs const& args, Wave const& wave, ByteRows const& rows,
                                    std::byte* const* to) {
    if (rows.width >= 4) {
      send_pieces<std::uint32_t, 4>(args, wave, rows, to);
    } else {
      send_pieces<std::uint8_t, 4>(args, wave, rows, to);
    }
  }
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    send_bytes(args, wave, args.x, wave.row);
    if (args.scale_rows.bytes > 0) send_bytes(args, wave, args.scale_rows, wave.scales);
    if (args.scales != nullptr) send_given_scales(args, wave);
  }
};

}  // namespace switchyard::cuda
