// Kernels of calls over nodes; see throughput/over_nodes/lists.hpp. Lists, and chunks of other nodes, lie in pinned
// memory of the host. The launch comes after the host has written them, and the host looks at what a kernel wrote
// only behind the end of the kernel, so plain loads and stores are enough.
#include "engine/cuda/device/elements.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/kernels/pull.cuh"
#include "engine/cuda/throughput/over_nodes/lists.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int list_threads = 512;
inline constexpr int list_warps = list_threads / 32;

__device__ int lane() {
  return static_cast<int>(threadIdx.x % 32);
}

__device__ std::uint64_t first_warp() {
  return static_cast<std::uint64_t>(blockIdx.x) * list_warps + threadIdx.x / 32;
}

__device__ std::uint64_t all_warps() {
  return static_cast<std::uint64_t>(gridDim.x) * list_warps;
}

// What each lane loads of a row before it stores any: memory of the host is far.
inline constexpr int units_ahead = 8;

inline constexpr std::uint32_t units_of_piece = units_ahead * 32;

__device__ std::uint32_t pieces_of(std::uint32_t units) {
  std::uint32_t const pieces = (units + units_of_piece - 1) / units_of_piece;
  return pieces > 0 ? pieces : 1;  // what lies beside an empty row goes with its only piece
}

// Loads a piece once, and stores it at every place of the row.
template <typename Unit>
__device__ void move_piece(MoveArgs const& args, MoveRow const& row, std::uint32_t piece) {
  std::uint32_t const units = args.row_bytes / sizeof(Unit);
  std::uint32_t const base = piece * units_of_piece + lane();
  Unit values[units_ahead];
  auto const* const from = reinterpret_cast<Unit const*>(row.x);
#pragma unroll
  for (int i = 0; i < units_ahead; ++i)
    if (base + i * 32 < units) values[i] = from[base + i * 32];
  for (std::uint32_t place = 0; place < row.places; ++place) {
    auto* const to = reinterpret_cast<Unit*>(args.places[row.first_place + place].x);
#pragma unroll
    for (int i = 0; i < units_ahead; ++i)
      if (base + i * 32 < units) to[base + i * 32] = values[i];
  }
}

__device__ void store_id(std::byte* ids, std::uint32_t bytes, std::uint32_t at, std::int32_t id) {
  if (bytes == 8)
    reinterpret_cast<std::int64_t*>(ids)[at] = id;
  else
    reinterpret_cast<std::int32_t*>(ids)[at] = id;
}

__device__ void write_slots(MoveArgs const& args, MoveTo const& to) {
  for (std::uint32_t slot = lane(); slot < args.row_slots; slot += 32) {
    MoveSlot mine{.slot = static_cast<std::int32_t>(slot), .id = -1, .weight = 0};
    for (std::uint32_t i = 0; i < to.slots; ++i) {
      MoveSlot const of_row = args.slots[to.first_slot + i];
      if (of_row.slot == mine.slot) mine = of_row;
    }
    if (args.id_bytes > 0) store_id(to.ids, args.id_bytes, slot, mine.id);
    if (to.weights != nullptr) to.weights[slot] = mine.weight;
  }
}

// What lies beside a row.
__device__ void move_description(MoveArgs const& args, MoveRow const& row) {
  std::int64_t const stride = row.from_caller != 0 ? args.scale_stride : 1;
  for (std::uint32_t place = 0; place < row.places; ++place) {
    MoveTo const to = args.places[row.first_place + place];
    if (row.scales != nullptr) {
      for (std::uint32_t word = lane(); word < args.scale_words; word += 32)
        reinterpret_cast<std::uint32_t*>(to.scales)[word] =
            reinterpret_cast<std::uint32_t const*>(row.scales)[word * stride];
    }
    if (to.token == nullptr) continue;  // a chunk, whose other parts the host writes
    if (lane() == 0) *to.token = row.token;
    write_slots(args, to);
  }
}

template <typename Unit>
__global__ void __launch_bounds__(list_threads) move_kernel(__grid_constant__ MoveArgs const args) {
  std::uint32_t const pieces = pieces_of(args.row_bytes / sizeof(Unit));
  std::uint64_t const all = static_cast<std::uint64_t>(args.count) * pieces;
  for (std::uint64_t i = first_warp(); i < all; i += all_warps()) {
    MoveRow const row = args.rows[i / pieces];
    auto const piece = static_cast<std::uint32_t>(i % pieces);
    if (piece == 0) move_description(args, row);
    move_piece<Unit>(args, row, piece);
  }
}

__device__ void fill(std::byte* to, std::uint32_t bytes, int value) {
  for (std::uint32_t i = lane(); i < bytes; i += 32) to[i] = static_cast<std::byte>(value);
}

__global__ void __launch_bounds__(list_threads) padding_kernel(__grid_constant__ PadArgs const args) {
  for (std::uint32_t range = 0; range < args.count; ++range) {
    PadRange const rows = args.ranges[range];
    for (std::int64_t row = rows.begin + static_cast<std::int64_t>(first_warp()); row < rows.end;
         row += static_cast<std::int64_t>(all_warps())) {
      if (lane() == 0) args.token[row] = -1;
      fill(args.ids + row * args.topk_bytes, args.topk_bytes, 0xff);  // -1 in either width
      fill(args.weights + row * args.weight_bytes, args.weight_bytes, 0);
      if (args.x == nullptr) continue;
      fill(args.x + row * args.row_bytes, args.row_bytes, 0);
      fill(args.scales + row * args.scale_bytes, args.scale_bytes, 0);
    }
  }
}

// A sum under way. The first term stands as it is: 0 + x would lose the sign of a zero.
template <typename Element, typename Unit>
struct Running {
  static constexpr int size = Vector<Element, Unit>::size;
  float of[size];
  bool any = false;

  __device__ void add(int i, float term) { of[i] = any ? __fadd_rn(of[i], term) : term; }
  __device__ void add_row(SumTerm const& term, std::uint32_t unit) {
    float const weight = term.weight != nullptr ? *term.weight : 1.0F;
    if (term.f32 != 0) {
#pragma unroll
      for (int i = 0; i < size; ++i) add(i, reinterpret_cast<float const*>(term.row)[unit * size + i]);
    } else {
      Vector<Element, Unit> values;
      values.unit = reinterpret_cast<Unit const*>(term.row)[unit];
#pragma unroll
      for (int i = 0; i < size; ++i) {
        float const value = Element::widen(values.elements[i]);
        add(i, term.weight != nullptr ? __fmul_rn(weight, value) : value);
      }
    }
    any = true;
  }
  __device__ void add_sum(Running const& sum) {
    if (!sum.any) return;
#pragma unroll
    for (int i = 0; i < size; ++i) add(i, sum.of[i]);
    any = true;
  }
};

template <typename Element, typename Unit>
__device__ void sum_unit(SumArgs const& args, SumRow const& row, std::uint32_t unit) {
  Running<Element, Unit> sum{};
  Running<Element, Unit> own{};
  for (std::uint32_t i = row.first; i < row.own; ++i) sum.add_row(args.terms[i], unit);
#pragma unroll 4
  for (std::uint32_t i = row.own; i < row.own_end; ++i) own.add_row(args.terms[i], unit);
  sum.add_sum(own);
  for (std::uint32_t i = row.own_end; i < row.end; ++i) sum.add_row(args.terms[i], unit);
  constexpr int size = Running<Element, Unit>::size;
  if (row.out_f32 != 0) {
#pragma unroll
    for (int i = 0; i < size; ++i) reinterpret_cast<float*>(row.out)[unit * size + i] = sum.of[i];
    return;
  }
  Vector<Element, Unit> result;
#pragma unroll
  for (int i = 0; i < size; ++i) result.elements[i] = Element::narrow(sum.of[i]);
  reinterpret_cast<Unit*>(row.out)[unit] = result.unit;
}

__device__ void sum_number(SumArgs const& args, SumNumber const& number) {
  float sum = 0;
  float own = 0;
  bool any = args.from_zero != 0;
  bool any_own = any;
  auto const add = [](float& to, bool& has, float term) {
    to = has ? __fadd_rn(to, term) : term;
    has = true;
  };
  for (std::uint32_t i = number.first; i < number.own; ++i) add(sum, any, *args.number_terms[i]);
  for (std::uint32_t i = number.own; i < number.own_end; ++i) add(own, any_own, *args.number_terms[i]);
  if (number.own < number.own_end || args.from_zero != 0) add(sum, any, own);
  for (std::uint32_t i = number.own_end; i < number.end; ++i) add(sum, any, *args.number_terms[i]);
  *number.out = sum;
}

template <typename Element, typename Unit>
__global__ void __launch_bounds__(list_threads) sum_kernel(__grid_constant__ SumArgs const args) {
  std::uint32_t const units = args.elements / Running<Element, Unit>::size;
  std::uint32_t const pieces = (units + 31) / 32;
  std::uint64_t const all = static_cast<std::uint64_t>(args.count) * pieces;
  for (std::uint64_t i = first_warp(); i < all; i += all_warps()) {
    SumRow const row = args.rows[i / pieces];
    std::uint32_t const unit = static_cast<std::uint32_t>(i % pieces) * 32 + lane();
    if (unit < units) sum_unit<Element, Unit>(args, row, unit);
  }
  std::uint64_t const threads = all_warps() * 32;
  for (std::uint64_t i = first_warp() * 32 + lane(); i < args.number_count; i += threads)
    sum_number(args, args.numbers[i]);
}

template <typename Args>
cudaError_t launch(void (*kernel)(Args), Args const& args, int blocks, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(list_threads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args);
}

template <typename Element, typename Narrow>
cudaError_t launch_sums_of(SumArgs const& args, int blocks, cudaStream_t stream) {
  if (args.width == 16) return launch(sum_kernel<Element, uint4>, args, blocks, stream);
  return launch(sum_kernel<Element, Narrow>, args, blocks, stream);
}

}  // namespace

cudaError_t launch_moves(MoveArgs const& args, int blocks, cudaStream_t stream) {
  if (args.width == 16) return launch(move_kernel<uint4>, args, blocks, stream);
  if (args.width == 4) return launch(move_kernel<std::uint32_t>, args, blocks, stream);
  return launch(move_kernel<std::uint8_t>, args, blocks, stream);
}

cudaError_t launch_padding(PadArgs const& args, int blocks, cudaStream_t stream) {
  return launch(padding_kernel, args, blocks, stream);
}

cudaError_t launch_sums(SumArgs const& args, int blocks, cudaStream_t stream) {
  switch (args.dtype) {
    case DType::bf16: return launch_sums_of<Bf16, std::uint16_t>(args, blocks, stream);
    case DType::f16: return launch_sums_of<F16, std::uint16_t>(args, blocks, stream);
    default: return launch_sums_of<F32, std::uint32_t>(args, blocks, stream);
  }
}

cudaError_t load_lists() {
  cudaError_t error = load_kernel(padding_kernel);
  auto const load = [&error](auto* kernel) {
    if (error == cudaSuccess) error = load_kernel(kernel);
  };
  load(move_kernel<uint4>);
  load(move_kernel<std::uint32_t>);
  load(move_kernel<std::uint8_t>);
  load(sum_kernel<Bf16, uint4>);
  load(sum_kernel<Bf16, std::uint16_t>);
  load(sum_kernel<F16, uint4>);
  load(sum_kernel<F16, std::uint16_t>);
  load(sum_kernel<F32, uint4>);
  load(sum_kernel<F32, std::uint32_t>);
  return error;
}

}  // namespace switchyard::cuda
