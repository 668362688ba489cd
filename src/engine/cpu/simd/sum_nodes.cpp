// sum_rows_to_f32() and sum_nodes(): the two steps of a sum over nodes. Compiled with -ffp-contract=off, as
// sum.cpp.
#include "engine/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/simd/sum_nodes.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <cstring>
#include <string>

#include "engine/cpu/simd/elements.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"
#include "switchyard/error.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

// Which elements of a row a step takes: a whole block, or the last ones, with zeros behind them.
struct Part {
  std::size_t first;
  std::size_t count;
  bool whole;
};

template <class Element>
HWY_INLINE void load_part(void const* row, Part const& part, F32& a, F32& b) {
  auto const* const from = static_cast<std::byte const*>(row) + part.first * Element::size;
  if (part.whole) return Element::load(from, a, b);
  alignas(64) std::byte padded[max_block_bytes] = {};
  std::memcpy(padded, from, part.count * Element::size);
  Element::load(padded, a, b);
}

// From f32, in the order of lanes in which Element::load() would put them.
template <class Element>
HWY_INLINE void load_f32(void const* row, Part const& part, F32& a, F32& b) {
  auto const* const from = static_cast<float const*>(row) + part.first;
  if (part.whole) return Element::take_in_order(from, a, b);
  alignas(64) float padded[max_block_bytes / sizeof(float)] = {};
  std::memcpy(padded, from, part.count * sizeof(float));
  Element::take_in_order(padded, a, b);
}

// Adds a term to the sum (a, b). The first one stands as it is: 0 + x would lose the sign of a zero.
HWY_INLINE void add_term(bool& empty, F32& a, F32& b, F32 next_a, F32 next_b) {
  a = empty ? next_a : hn::Add(a, next_a);
  b = empty ? next_b : hn::Add(b, next_b);
  empty = false;
}

template <class Element>
HWY_INLINE void add_bias(bool& empty, F32& a, F32& b, void const* bias, Part const& part) {
  if (bias == nullptr) return;
  F32 next_a = hn::Zero(TagF32());
  F32 next_b = next_a;
  load_part<Element>(bias, part, next_a, next_b);
  add_term(empty, a, b, next_a, next_b);
}

// A row times its weight.
template <class Element>
HWY_INLINE void load_row(void const* row, float const* weight, Part const& part, F32& a, F32& b) {
  load_part<Element>(row, part, a, b);
  if (weight == nullptr) return;
  F32 const factor = hn::Set(TagF32(), *weight);
  a = hn::Mul(factor, a);
  b = hn::Mul(factor, b);
}

// Adds rows in their order; `weights`: one per row, null: all 1.
template <class Element>
HWY_INLINE void add_rows(bool& empty, F32& a, F32& b, std::span<void const* const> rows, float const* weights,
                         Part const& part) {
  for (std::size_t row = 0; row < rows.size(); ++row) {
    F32 next_a = a;
    F32 next_b = b;
    load_row<Element>(rows[row], weights != nullptr ? weights + row : nullptr, part, next_a, next_b);
    add_term(empty, a, b, next_a, next_b);
  }
}

template <class Element>
HWY_INLINE void rows_of_part(RowSum const& sum, Part const& part) {
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  bool empty = true;
  add_bias<Element>(empty, a, b, sum.bias0, part);
  add_bias<Element>(empty, a, b, sum.bias1, part);
  add_rows<Element>(empty, a, b, sum.rows, sum.row_weights, part);
  auto* const to = static_cast<float*>(sum.out) + part.first;
  if (part.whole) return Element::put_in_order(canonical_nan(a), canonical_nan(b), to);
  alignas(64) float padded[max_block_bytes / sizeof(float)];
  Element::put_in_order(canonical_nan(a), canonical_nan(b), padded);
  std::memcpy(to, padded, part.count * sizeof(float));
}

template <class Element>
HWY_INLINE void rows_to_f32(RowSum const& sum) {
  std::size_t const block = block_elements();
  std::size_t first = 0;
  RowsAhead const ahead(sum.rows, sum.next_rows, sum.count * Element::size);
  for (; sum.count - first >= block; first += block) {
    ahead.prefetch(first * Element::size, block * Element::size);
    rows_of_part<Element>(sum, {first, block, true});
  }
  if (first != sum.count) rows_of_part<Element>(sum, {first, sum.count - first, false});
}

template <class Element>
HWY_INLINE void load_node(NodeSum const& sum, std::size_t i, Part const& part, F32& a, F32& b) {
  bool empty = true;
  // Their sum stays in registers.
  if (i == sum.own && !sum.own_rows.empty())
    return add_rows<Element>(empty, a, b, sum.own_rows, sum.own_weights, part);
  if (sum.all_f32 || i == sum.own) return load_f32<Element>(sum.parts[i], part, a, b);
  load_part<Element>(sum.parts[i], part, a, b);
}

template <class Element, bool streamed>
HWY_INLINE void nodes_of_part(NodeSum const& sum, Part const& part) {
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  bool empty = true;
  add_bias<Element>(empty, a, b, sum.bias0, part);
  add_bias<Element>(empty, a, b, sum.bias1, part);
  for (std::size_t i = 0; i < sum.parts.size(); ++i) {
    F32 next_a = a;
    F32 next_b = b;
    load_node<Element>(sum, i, part, next_a, next_b);
    add_term(empty, a, b, next_a, next_b);
  }
  std::byte* const to = static_cast<std::byte*>(sum.out) + part.first * Element::size;
  if (part.whole) return Element::template store<streamed>(canonical_nan(a), canonical_nan(b), to);
  alignas(64) std::byte padded[max_block_bytes];
  Element::template store<false>(canonical_nan(a), canonical_nan(b), padded);
  std::memcpy(to, padded, part.count * Element::size);
}

// Sums whole blocks from `first` on; returns where it stopped.
template <class Element, bool streamed>
HWY_INLINE std::size_t node_blocks(NodeSum const& sum, std::size_t first) {
  std::size_t const block = block_elements();
  RowsAhead const ahead(sum.own_rows, sum.next_rows, sum.count * Element::size);
  for (; sum.count - first >= block; first += block) {
    ahead.prefetch(first * Element::size, block * Element::size);
    nodes_of_part<Element, streamed>(sum, {first, block, true});
  }
  return first;
}

template <class Element>
HWY_INLINE void nodes_of(NodeSum const& sum) {
  auto const before = bytes_before_stream(sum.out, Element::size, sum.count * Element::size);
  std::size_t first = before.value_or(0) / Element::size;
  if (first != 0) nodes_of_part<Element, false>(sum, {0, first, false});
  first = before ? node_blocks<Element, true>(sum, first) : node_blocks<Element, false>(sum, first);
  if (first != sum.count) nodes_of_part<Element, false>(sum, {first, sum.count - first, false});
}

void rows_of_bf16(RowSum const& sum) {
  rows_to_f32<Bf16>(sum);
}
void rows_of_f16(RowSum const& sum) {
  rows_to_f32<F16>(sum);
}
void rows_of_f32(RowSum const& sum) {
  rows_to_f32<Single>(sum);
}
void nodes_of_bf16(NodeSum const& sum) {
  nodes_of<Bf16>(sum);
}
void nodes_of_f16(NodeSum const& sum) {
  nodes_of<F16>(sum);
}
void nodes_of_f32(NodeSum const& sum) {
  nodes_of<Single>(sum);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(rows_of_bf16);
HWY_EXPORT(rows_of_f16);
HWY_EXPORT(rows_of_f32);
HWY_EXPORT(nodes_of_bf16);
HWY_EXPORT(nodes_of_f16);
HWY_EXPORT(nodes_of_f32);

void sum_rows_to_f32(RowSum const& sum) {
  switch (sum.dtype) {
    case DType::bf16: return HWY_DYNAMIC_DISPATCH(rows_of_bf16)(sum);
    case DType::f16: return HWY_DYNAMIC_DISPATCH(rows_of_f16)(sum);
    case DType::f32: return HWY_DYNAMIC_DISPATCH(rows_of_f32)(sum);
    default: throw InvalidArgument("sum_rows_to_f32: no sums of " + std::string(name_of(sum.dtype)));
  }
}

void sum_nodes(NodeSum const& sum) {
  switch (sum.dtype) {
    case DType::bf16: return HWY_DYNAMIC_DISPATCH(nodes_of_bf16)(sum);
    case DType::f16: return HWY_DYNAMIC_DISPATCH(nodes_of_f16)(sum);
    case DType::f32: return HWY_DYNAMIC_DISPATCH(nodes_of_f32)(sum);
    default: throw InvalidArgument("sum_nodes: no sums of " + std::string(name_of(sum.dtype)));
  }
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
