// Low-latency dispatch: rows of bytes, each read once and written to all of its slots; and f32 scales.
#pragma once

#include "engine/cuda/phases/slot_place.cuh"

namespace switchyard::cuda {

__device__ inline int warp_of_block() {
  return static_cast<int>(threadIdx.x / 32);
}
__device__ inline int lane_of_warp() {
  return static_cast<int>(threadIdx.x % 32);
}
inline constexpr int slot_warps = slot_threads / 32;

// Where row 0 of the slot's rank would lie, for rows that lie one after another.
__device__ inline std::byte* slot_row(SlotDispatchArgs const& args, Wave const& wave, int at, std::size_t part,
                                      std::uint32_t bytes) {
  return frame_part<std::byte>(args, wave.rank[at], part) + static_cast<std::int64_t>(wave.row[at]) * bytes;
}

// A warp's piece of a row: `vectors` of each lane, all loaded before any is stored.
template <typename Vector, int vectors>
__device__ inline void send_piece(SlotDispatchArgs const& args, Wave const& wave, ByteRows const& rows,
                                  std::size_t part, int token, std::uint32_t begin) {
  constexpr std::uint32_t step = 32 * sizeof(Vector);
  std::byte const* const from = rows.from + (wave.first + token) * rows.stride;
  std::uint32_t const at = begin + static_cast<std::uint32_t>(lane_of_warp() * sizeof(Vector));
  Vector piece[vectors];
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (at + i * step < rows.bytes) piece[i] = *reinterpret_cast<Vector const*>(from + at + i * step);
  }
#pragma unroll 1
  for (int slot = token * args.top_k; slot < (token + 1) * args.top_k; ++slot) {
    if (wave.row[slot] < 0) continue;
    std::byte* const to = slot_row(args, wave, slot, part, rows.bytes) + at;
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (at + i * step < rows.bytes) *reinterpret_cast<Vector*>(to + i * step) = piece[i];
    }
  }
}

template <typename Vector, int vectors>
__device__ inline void send_pieces(SlotDispatchArgs const& args, Wave const& wave, ByteRows const& rows,
                                   std::size_t part) {
  constexpr std::uint32_t piece = vectors * 32 * sizeof(Vector);
  int const pieces = static_cast<int>((rows.bytes + piece - 1) / piece);
  for (int i = warp_of_block(); i < wave.tokens * pieces; i += slot_warps)
    send_piece<Vector, vectors>(args, wave, rows, part, i / pieces, static_cast<std::uint32_t>(i % pieces) * piece);
}

// By all threads of a block, after place_wave(). Few tokens are cut into smaller pieces, for all warps to have
// some.
__device__ inline void send_rows(SlotDispatchArgs const& args, Wave const& wave, ByteRows const& rows,
                                 std::size_t part) {
  if (rows.bytes == 0) return;
  switch (rows.width) {
    case 16:
      if (wave.tokens * rows.bytes >= slot_warps * 2048U) {
        send_pieces<uint4, 4>(args, wave, rows, part);
      } else {
        send_pieces<uint4, 1>(args, wave, rows, part);
      }
      break;
    case 4: send_pieces<std::uint32_t, 4>(args, wave, rows, part); break;
    default: send_pieces<std::uint8_t, 4>(args, wave, rows, part); break;
  }
}

// Where the scale of a group of a row lies, in a frame: column-major within an expert, row-major with rank_major.
__device__ inline std::int64_t scale_at(SlotArgs const& args, std::int64_t row, int group, int groups) {
  if (args.rank_major) return row * groups + group;
  std::int64_t const rows = args.rows_of_expert();
  std::int64_t const expert = row / rows;
  return (expert * groups + group) * rows + row % rows;
}

template <typename Scale>
__device__ inline void send_scale(SlotDispatchArgs const& args, Wave const& wave, int slot, int group, int groups,
                                  Scale scale) {
  frame_part<Scale>(args, wave.rank[slot], args.at.scales)[scale_at(args, wave.row[slot], group, groups)] = scale;
}

// Scales that the caller gave with its rows.
__device__ inline void send_given_scales(SlotDispatchArgs const& args, Wave const& wave) {
  if (args.scales == nullptr) return;
  int const groups = static_cast<int>((args.hidden + 127) / 128);
  for (int i = static_cast<int>(threadIdx.x); i < wave.tokens * groups; i += slot_threads) {
    int const token = i / groups;
    int const group = i % groups;
    float const scale = args.scales[(wave.first + token) * args.scale_strides[0] + group * args.scale_strides[1]];
#pragma unroll 1
    for (int slot = token * args.top_k; slot < (token + 1) * args.top_k; ++slot) {
      if (wave.row[slot] >= 0) send_scale(args, wave, slot, group, groups, scale);
    }
  }
}

}  // namespace switchyard::cuda
