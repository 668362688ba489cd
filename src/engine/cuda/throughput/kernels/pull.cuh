// Pull: the owner of a token reads its rows from the peers' heaps and sums them in f32, in the order of the routes.
// Every product and every sum is rounded on its own, as on the CPU engine.
#pragma once

#include "engine/cuda/device/elements.cuh"
#include "engine/cuda/throughput/kernels/routes.cuh"

namespace switchyard::cuda {

// The rows of a token, one for each lane.
struct TokenRows {
  std::byte const* row;  // of x
  float weight;
  int used;  // lanes that have a row
};

// What a lane loads at once: a `Unit` of elements.
template <typename Element, typename Unit>
struct Vector {
  using Storage = typename Element::Storage;
  static constexpr int size = sizeof(Unit) / sizeof(Storage);
  union {
    Unit unit;
    Storage elements[size];
  };
};

template <typename Element, typename Unit>
struct Sum {
  using Values = Vector<Element, Unit>;
  float of[Values::size];

  // The first term stands as it is: 0 + x would lose the sign of a zero.
  __device__ void add(Values const& values, float weight, bool weighted, bool first) {
#pragma unroll
    for (int i = 0; i < Values::size; ++i) {
      float term = Element::widen(values.elements[i]);
      if (weighted) term = __fmul_rn(weight, term);
      of[i] = first ? term : __fadd_rn(of[i], term);
    }
  }
};

// Starts the sum of a token with its biases; returns whether it has any. `unit` counts from the start of the row.
template <typename Element, typename Unit>
__device__ inline bool add_biases(CombineKernelArgs const& args, std::int64_t token, std::uint32_t unit,
                                  Sum<Element, Unit>& sum) {
  bool any = false;
#pragma unroll 1
  for (int which = 0; which < 2; ++which) {
    if (args.bias[which] == nullptr) continue;
    Vector<Element, Unit> values;
    values.unit = reinterpret_cast<Unit const*>(args.bias[which] + token * args.bias_stride[which])[unit];
    sum.add(values, 1.0F, false, !any);
    any = true;
  }
  return any;
}

// `biased`: the sum goes on from there.
template <typename Element, typename Unit>
__device__ inline void sum_routes(TokenRows const& token, std::uint32_t unit, bool inside, bool weighted,
                                  bool biased, Sum<Element, Unit>& sum) {
  constexpr int ahead = 4;
  using Values = Vector<Element, Unit>;
  for (int group = 0; group < token.used; group += ahead) {
    Values values[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      auto const row = __shfl_sync(~0U, reinterpret_cast<unsigned long long>(token.row), (group + i) % 32);
      if (group + i < token.used && inside) values[i].unit = reinterpret_cast<Unit const*>(row)[unit];
    }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      float const weight = __shfl_sync(~0U, token.weight, (group + i) % 32);
      if (group + i < token.used) sum.add(values[i], weight, weighted, group + i == 0 && !biased);
    }
  }
}

template <typename Element, typename Unit>
__device__ inline void sum_token(CombineKernelArgs const& args, std::int64_t token, TokenRows const& low,
                                 TokenRows const& high) {
  using Values = Vector<Element, Unit>;
  auto const units =
      static_cast<std::uint32_t>(args.hidden * static_cast<int>(sizeof(typename Element::Storage)) / sizeof(Unit));
  bool const weighted = args.row_weights.data != nullptr;
  auto* const out = reinterpret_cast<Unit*>(args.out + token * args.out_stride);
  for (std::uint32_t base = 0; base < units; base += 32) {
    std::uint32_t const unit = base + threadIdx.x % 32;
    bool const inside = unit < units;
    Sum<Element, Unit> sum{};
    bool const biased = inside && add_biases(args, token, unit, sum);
    sum_routes<Element, Unit>(low, unit, inside, weighted, biased, sum);
    if (high.used > 0) {
      // The token has more than 32 routes: the sum goes on where it stood.
      for (int i = 0; i < high.used; ++i) {
        auto const row = __shfl_sync(~0U, reinterpret_cast<unsigned long long>(high.row), i);
        float const weight = __shfl_sync(~0U, high.weight, i);
        Values values;
        if (inside) values.unit = reinterpret_cast<Unit const*>(row)[unit];
        sum.add(values, weight, weighted, false);
      }
    }
    if (!inside) continue;
    Values result;
#pragma unroll
    for (int i = 0; i < Values::size; ++i) result.elements[i] = Element::narrow(sum.of[i]);
    out[unit] = result.unit;
  }
}

// The rows of the token's routes `first`..`first + 31`. The routes were checked when they became final, and the
// room for all rows of a peer was checked when it announced its tensors.
__device__ inline TokenRows rows_of_token(CombineKernelArgs const& args, SourceRows const* sources,
                                          std::int64_t token, int first) {
  int const index = first + static_cast<int>(threadIdx.x % 32);
  DeviceRoute route{0, -1, -1};
  if (index < args.handle.width) route = args.handle.routes[token * args.handle.width + index];
  int const used = used_routes(route);
  TokenRows rows{nullptr, 1.0F, used};
  if (static_cast<int>(threadIdx.x % 32) >= used) return rows;
  SourceRows const& from = sources[route.rank];
  rows.row = from.x + route.row * from.stride;
  if (args.row_weights.data != nullptr) rows.weight = from.row_weights[route.row];
  return rows;
}

// One warp gathers the weights of a token. The weight of a slot comes from the row of the rank that has its expert,
// or is the sum over all rows.
__device__ inline void gather_weights(CombineKernelArgs const& args, SourceRows const* sources,
                                      std::int64_t token) {
  int const top_k = args.weight_slots;
  DeviceRoute const* const routes = args.handle.routes + token * args.handle.width;
  for (int slot = static_cast<int>(threadIdx.x % 32); slot < top_k; slot += 32) {
    float weight = 0.0F;
    for (int i = 0; i < args.handle.width && routes[i].rank >= 0; ++i) {
      auto const* const from = reinterpret_cast<float const*>(sources[routes[i].rank].weights);
      if (args.handle.expanded) {
        if (routes[i].slot == slot) weight = from[routes[i].row];
        continue;
      }
      std::int64_t const at = static_cast<std::int64_t>(routes[i].row) * top_k + slot;
      if (args.weights_of_all_ranks) {
        weight = __fadd_rn(weight, from[at]);
      } else if (args.handle.slot_rank[token * top_k + slot] == routes[i].rank) {
        weight = from[at];
      }
    }
    args.out_weights[token * top_k + slot] = weight;
  }
}

// All warps of the kernel share the tokens.
template <typename Element, typename Unit>
__device__ inline void pull_tokens(CombineKernelArgs const& args, SourceRows const* sources) {
  int const warps = static_cast<int>(blockDim.x / 32);
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * warps;
  TokenRows const none{nullptr, 1.0F, 0};
  for (std::int64_t token = blockIdx.x * warps + threadIdx.x / 32; token < args.handle.num_tokens; token += step) {
    TokenRows const low = rows_of_token(args, sources, token, 0);
    TokenRows const high =
        args.handle.width > 32 && low.used == 32 ? rows_of_token(args, sources, token, 32) : none;
    sum_token<Element, Unit>(args, token, low, high);
    if (args.out_weights != nullptr) gather_weights(args, sources, token);
  }
}

}  // namespace switchyard::cuda
