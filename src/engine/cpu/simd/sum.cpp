// sum_rows(). Compiled with -ffp-contract=off: a product and a sum are rounded each on its own.
#include "engine/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/simd/sum.cpp"
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

// Reads whole blocks.
struct WholeBlock {
  template <class Element>
  HWY_INLINE void load(void const* row, std::size_t offset, F32& a, F32& b) const {
    auto const* const from = static_cast<std::byte const*>(row) + offset;
    Element::load(from, a, b);
  }
};

// Reads the first `bytes` of a block, and zeros for the rest.
struct PartialBlock {
  std::size_t bytes;

  template <class Element>
  HWY_INLINE void load(void const* row, std::size_t offset, F32& a, F32& b) const {
    alignas(64) std::byte padded[max_block_bytes] = {};
    std::memcpy(padded, static_cast<std::byte const*>(row) + offset, bytes);
    Element::load(padded, a, b);
  }
};

template <class Element, bool weighted, class Reader>
HWY_INLINE void load_term(Reader reader, RowSum const& sum, std::size_t row, std::size_t offset, F32& a, F32& b) {
  reader.template load<Element>(sum.rows[row], offset, a, b);
  if constexpr (weighted) {
    F32 const weight = hn::Set(TagF32(), sum.row_weights[row]);
    a = hn::Mul(weight, a);
    b = hn::Mul(weight, b);
  }
}

// The sums of the block at `offset` (bytes): biases, then every row. The first term stands as it is: 0 + x would
// lose the sign of a zero.
template <class Element, bool weighted, class Reader>
HWY_INLINE void sum_block(Reader reader, RowSum const& sum, std::size_t offset, F32& a, F32& b) {
  a = b = hn::Zero(TagF32());
  F32 next_a = a;
  F32 next_b = b;
  std::size_t row = 0;
  if (void const* const first = sum.bias0 != nullptr ? sum.bias0 : sum.bias1; first != nullptr) {
    reader.template load<Element>(first, offset, a, b);
  } else if (!sum.rows.empty()) {
    load_term<Element, weighted>(reader, sum, row++, offset, a, b);
  }
  if (sum.bias0 != nullptr && sum.bias1 != nullptr) {
    reader.template load<Element>(sum.bias1, offset, next_a, next_b);
    a = hn::Add(a, next_a);
    b = hn::Add(b, next_b);
  }
  for (; row < sum.rows.size(); ++row) {
    load_term<Element, weighted>(reader, sum, row, offset, next_a, next_b);
    a = hn::Add(a, next_a);
    b = hn::Add(b, next_b);
  }
  a = canonical_nan(a);
  b = canonical_nan(b);
}

// For the ends of a row that are no whole block.
template <class Element, bool weighted>
HWY_NOINLINE void sum_part(RowSum const& sum, std::size_t offset, std::size_t bytes) {
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  sum_block<Element, weighted>(PartialBlock{bytes}, sum, offset, a, b);
  alignas(64) std::byte padded[max_block_bytes];
  Element::template store<false>(a, b, padded);
  std::memcpy(static_cast<std::byte*>(sum.out) + offset, padded, bytes);
}

// Sums whole blocks from `offset` on; returns where it stopped.
template <class Element, bool weighted, bool streamed>
HWY_INLINE std::size_t sum_blocks(RowSum const& sum, std::size_t offset) {
  std::size_t const bytes = sum.count * Element::size;
  std::size_t const block = block_elements() * Element::size;
  F32 a = hn::Zero(TagF32());
  F32 b = a;
  RowsAhead const ahead(sum.rows, sum.next_rows, bytes);
  for (; bytes - offset >= block; offset += block) {
    ahead.prefetch(offset, block);
    sum_block<Element, weighted>(WholeBlock(), sum, offset, a, b);
    Element::template store<streamed>(a, b, static_cast<std::byte*>(sum.out) + offset);
  }
  return offset;
}

template <class Element, bool weighted>
HWY_INLINE void sum_elements(RowSum const& sum) {
  std::size_t const bytes = sum.count * Element::size;
  auto const before = sum.out_is_read_next ? std::nullopt : bytes_before_stream(sum.out, Element::size, bytes);
  std::size_t offset = before.value_or(0);
  if (offset != 0) sum_part<Element, weighted>(sum, 0, offset);
  offset =
      before ? sum_blocks<Element, weighted, true>(sum, offset) : sum_blocks<Element, weighted, false>(sum, offset);
  if (offset != bytes) sum_part<Element, weighted>(sum, offset, bytes - offset);
}

template <class Element>
HWY_INLINE void sum_type(RowSum const& sum) {
  if (sum.row_weights == nullptr) {
    sum_elements<Element, false>(sum);
  } else {
    sum_elements<Element, true>(sum);
  }
}

void sum_bf16(RowSum const& sum) {
  sum_type<Bf16>(sum);
}
void sum_f16(RowSum const& sum) {
  sum_type<F16>(sum);
}
void sum_f32(RowSum const& sum) {
  sum_type<Single>(sum);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(sum_bf16);
HWY_EXPORT(sum_f16);
HWY_EXPORT(sum_f32);

void sum_rows(RowSum const& sum) {
  switch (sum.dtype) {
    case DType::bf16: return HWY_DYNAMIC_DISPATCH(sum_bf16)(sum);
    case DType::f16: return HWY_DYNAMIC_DISPATCH(sum_f16)(sum);
    case DType::f32: return HWY_DYNAMIC_DISPATCH(sum_f32)(sum);
    default: throw InvalidArgument("sum_rows: no sums of " + std::string(name_of(sum.dtype)));
  }
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
