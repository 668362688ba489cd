// How bf16, f16 and f32 are loaded as f32 and stored back, a block (two f32 vectors) at a time. Included once
// per Highway target; no pointer needs any alignment unless said so.

// The guard that Highway asks of a header that is compiled once per target.
#if defined(SWITCHYARD_SIMD_ELEMENTS_TARGET) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_SIMD_ELEMENTS_TARGET
#undef SWITCHYARD_SIMD_ELEMENTS_TARGET
#else
#define SWITCHYARD_SIMD_ELEMENTS_TARGET
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 256 bytes a vector, so that a block of f32 fits a buffer of fixed size, and divides an fp8 group.
using TagF32 = hn::CappedTag<float, 64>;
using TagU32 = hn::RebindToUnsigned<TagF32>;
using TagU16 = hn::Repartition<std::uint16_t, TagF32>;
using TagU16Half = hn::Rebind<std::uint16_t, TagF32>;
using TagF16Half = hn::Rebind<hwy::float16_t, TagF32>;
using F32 = hn::Vec<TagF32>;
using U32 = hn::Vec<TagU32>;
using U16 = hn::Vec<TagU16>;
using U16Half = hn::Vec<TagU16Half>;

inline constexpr std::size_t max_block_bytes = 2 * 64 * sizeof(float);

HWY_INLINE std::size_t block_elements() {
  return 2 * hn::Lanes(TagF32());
}
HWY_INLINE std::size_t vector_bytes() {
  return hn::Lanes(TagF32()) * sizeof(float);
}

HWY_INLINE F32 as_f32(U32 bits) {
  return hn::BitCast(TagF32(), bits);
}
HWY_INLINE U32 as_u32(F32 value) {
  return hn::BitCast(TagU32(), value);
}
HWY_INLINE U32 all_u32(std::uint32_t value) {
  return hn::Set(TagU32(), value);
}

// Rows come from memory and start on new pages, where the machine's own prefetcher has to learn them again.
// With this many bytes ahead a sum of five rows of 7168 bf16 takes a third less time on Zen 5 (512 gain half of
// that, 2048 no more).
inline constexpr std::size_t prefetch_ahead = 1024;

// Asks for the lines of `bytes` bytes of a row.
HWY_INLINE void prefetch_lines(void const* row, std::size_t at, std::size_t bytes) {
  for (std::size_t line = 0; line < bytes; line += 64)
    hwy::Prefetch(static_cast<std::byte const*>(row) + at + line);
}

// Asks for the lines of the `bytes` that lie that far behind `offset`, unless the row ends before.
HWY_INLINE void prefetch(void const* row, std::size_t offset, std::size_t bytes, std::size_t row_bytes) {
  if (row_bytes - offset >= prefetch_ahead + bytes) prefetch_lines(row, offset + prefetch_ahead, bytes);
}

// The same for rows that are read side by side, and then for the beginnings of the rows that come after them. How
// much is on its way decides about the rate: of few rows more is asked for ahead of each.
class RowsAhead {
 public:
  HWY_INLINE RowsAhead(std::span<void const* const> rows, std::span<void const* const> next, std::size_t row_bytes)
      : rows_(rows), next_(next), row_bytes_(row_bytes), ahead_(bytes_ahead(rows.size())) {}

  HWY_INLINE void prefetch(std::size_t offset, std::size_t bytes) const {
    std::size_t const at = offset + ahead_;
    if (at + bytes <= row_bytes_) {
      for (void const* const row : rows_) prefetch_lines(row, at, bytes);
      return;
    }
    std::size_t const of_next = at > row_bytes_ ? at - row_bytes_ : 0;
    if (of_next + bytes > row_bytes_) return;
    for (void const* const row : next_) prefetch_lines(row, of_next, bytes);
  }

 private:
  static HWY_INLINE std::size_t bytes_ahead(std::size_t rows) {
    constexpr std::size_t of_all = 5 * prefetch_ahead;
    return std::clamp(of_all / std::max<std::size_t>(rows, 1), prefetch_ahead, 4 * prefetch_ahead);
  }

  std::span<void const* const> rows_;
  std::span<void const* const> next_;
  std::size_t row_bytes_;
  std::size_t ahead_;
};

// Loads and stores go through bytes, since addresses may be odd.
template <class Tag>
HWY_INLINE hn::Vec<Tag> load_bytes(Tag tag, std::byte const* from) {
  hn::Repartition<std::uint8_t, Tag> const bytes;
  return hn::BitCast(tag, hn::LoadU(bytes, reinterpret_cast<std::uint8_t const*>(from)));
}

// With `streamed`, `to` is aligned to a vector.
template <bool streamed, class Tag>
HWY_INLINE void store_bytes(Tag tag, hn::Vec<Tag> value, std::byte* to) {
  hn::Repartition<std::uint8_t, Tag> const bytes;
  auto* const target = reinterpret_cast<std::uint8_t*>(to);
  if constexpr (streamed) {
    hn::Stream(hn::BitCast(bytes, value), bytes, target);
  } else {
    hn::StoreU(hn::BitCast(bytes, value), bytes, target);
  }
  (void)tag;
}

// Bytes of an output before the place where non-temporal stores may begin, `bytes` at most. None where no whole
// element brings to a vector's alignment.
HWY_INLINE std::optional<std::size_t> bytes_before_stream(void const* out, std::size_t element_bytes,
                                                          std::size_t bytes) {
  std::size_t const vector = vector_bytes();
  auto const address = reinterpret_cast<std::uintptr_t>(out);
  if (address % element_bytes != 0) return std::nullopt;
  return std::min(bytes, (vector - address % vector) % vector);
}

// Joins two vectors of u32 below 2^16, in order.
HWY_INLINE U16 narrow_in_order(U32 low, U32 high) {
  TagU16Half const half;
  return hn::Combine(TagU16(), hn::TruncateTo(half, high), hn::TruncateTo(half, low));
}

// Highway's own f16 conversions are wrong for infinity, NaN or rounding where the machine has none, so those
// targets get ours.
#ifdef HWY_DISABLE_F16C
inline constexpr bool machine_converts_f16 = false;
#else
inline constexpr bool machine_converts_f16 = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2;
#endif

HWY_INLINE F32 f16_to_f32(U16Half half) {
  if constexpr (machine_converts_f16) {
    return hn::PromoteTo(TagF32(), hn::BitCast(TagF16Half(), half));
  }
  U32 const bits = hn::PromoteTo(TagU32(), half);
  U32 const sign = hn::ShiftLeft<16>(hn::And(bits, all_u32(0x8000)));
  U32 const shifted = hn::ShiftLeft<13>(hn::And(bits, all_u32(0x7fff)));
  U32 const normal = hn::Add(shifted, all_u32((127 - 15) << 23));
  // A denormal has no hidden bit: give it one, then take that away again.
  F32 const hidden = as_f32(all_u32((127 - 14) << 23));
  U32 const denormal = as_u32(hn::Sub(as_f32(hn::Add(shifted, all_u32((127 - 14) << 23))), hidden));
  U32 const special = hn::Add(normal, all_u32((127 - 15) << 23));
  U32 const finite = hn::IfThenElse(hn::Lt(shifted, all_u32(1 << 23)), denormal, normal);
  return as_f32(hn::Or(sign, hn::IfThenElse(hn::Lt(shifted, all_u32(31 << 23)), finite, special)));
}

HWY_INLINE U16Half f32_to_f16(F32 value) {
  if constexpr (machine_converts_f16) {
    return hn::BitCast(TagU16Half(), hn::DemoteTo(TagF16Half(), value));
  }
  U32 const sign = hn::ShiftRight<16>(hn::And(as_u32(value), all_u32(0x80000000)));
  U32 const bits = hn::And(as_u32(value), all_u32(0x7fffffff));
  U32 const odd = hn::And(hn::ShiftRight<13>(bits), all_u32(1));
  // Half of the last place less one, and one more when that place is odd: ties go to even.
  U32 const rounded = hn::Add(hn::Add(bits, odd), all_u32(0xfff));
  U32 const normal = hn::ShiftRight<13>(hn::Sub(rounded, all_u32((127 - 15) << 23)));
  // 0.5 has the last place of f16's denormals, so the addition rounds to them.
  U32 const denormal = hn::Sub(as_u32(hn::Add(as_f32(bits), hn::Set(TagF32(), 0.5F))), all_u32(126 << 23));
  U32 const finite = hn::IfThenElse(hn::Lt(bits, all_u32((127 - 14) << 23)), denormal, normal);
  U32 const special = hn::IfThenElse(hn::Gt(bits, all_u32(0x7f800000)), all_u32(0x7e00), all_u32(0x7c00));
  U32 const any = hn::IfThenElse(hn::Lt(bits, all_u32((127 + 16) << 23)), finite, special);
  return hn::TruncateTo(TagU16Half(), hn::Or(sign, any));
}

// Each type below has: load() of a block; store() of a block without NaN payloads, see canonical_nan(); and for a
// block as load() splits it: in_order(), which joins one small integer per element, put_in_order() to an array of
// f32, and take_in_order() from one.

// Even and odd elements are kept apart, so that no lane moves: loads and stores cost a shift and an AND.
struct Bf16 {
  static constexpr std::size_t size = 2;

  static HWY_INLINE void load(std::byte const* from, F32& even, F32& odd) {
    U32 const pairs = load_bytes(TagU32(), from);
    even = as_f32(hn::ShiftLeft<16>(pairs));
    odd = as_f32(hn::And(pairs, all_u32(0xffff0000)));
  }
  template <bool streamed>
  static HWY_INLINE void store(F32 even, F32 odd, std::byte* to) {
    U32 const low = hn::ShiftRight<16>(rounded(even));
    U32 const high = hn::And(rounded(odd), all_u32(0xffff0000));
    store_bytes<streamed>(TagU32(), hn::Or(low, high), to);
  }
  static HWY_INLINE U16 in_order(U32 even, U32 odd) {
    return hn::BitCast(TagU16(), hn::Or(even, hn::ShiftLeft<16>(odd)));
  }
  static HWY_INLINE void put_in_order(F32 even, F32 odd, float* to) {
    hn::StoreInterleaved2(even, odd, TagF32(), to);
  }
  static HWY_INLINE void take_in_order(float const* from, F32& even, F32& odd) {
    hn::LoadInterleaved2(TagF32(), from, even, odd);
  }

 private:
  // Its upper half is the nearest bf16, ties to even. (AVX-512's own instruction flushes denormals.)
  static HWY_INLINE U32 rounded(F32 value) {
    U32 const bits = as_u32(value);
    U32 const odd = hn::And(hn::ShiftRight<16>(bits), all_u32(1));
    return hn::Add(hn::Add(bits, odd), all_u32(0x7fff));
  }
};

struct F16 {
  static constexpr std::size_t size = 2;

  static HWY_INLINE void load(std::byte const* from, F32& low, F32& high) {
    low = f16_to_f32(load_bytes(TagU16Half(), from));
    high = f16_to_f32(load_bytes(TagU16Half(), from + vector_bytes() / 2));
  }
  template <bool streamed>
  static HWY_INLINE void store(F32 low, F32 high, std::byte* to) {
    store_bytes<streamed>(TagU16(), hn::Combine(TagU16(), f32_to_f16(high), f32_to_f16(low)), to);
  }
  static HWY_INLINE U16 in_order(U32 low, U32 high) { return narrow_in_order(low, high); }
  static HWY_INLINE void put_in_order(F32 low, F32 high, float* to) {
    hn::StoreU(low, TagF32(), to);
    hn::StoreU(high, TagF32(), to + hn::Lanes(TagF32()));
  }
  static HWY_INLINE void take_in_order(float const* from, F32& low, F32& high) {
    low = hn::LoadU(TagF32(), from);
    high = hn::LoadU(TagF32(), from + hn::Lanes(TagF32()));
  }
};

struct Single {
  static constexpr std::size_t size = 4;

  static HWY_INLINE void load(std::byte const* from, F32& low, F32& high) {
    low = load_bytes(TagF32(), from);
    high = load_bytes(TagF32(), from + vector_bytes());
  }
  template <bool streamed>
  static HWY_INLINE void store(F32 low, F32 high, std::byte* to) {
    store_bytes<streamed>(TagF32(), low, to);
    store_bytes<streamed>(TagF32(), high, to + vector_bytes());
  }
  static HWY_INLINE U16 in_order(U32 low, U32 high) { return narrow_in_order(low, high); }
  static HWY_INLINE void put_in_order(F32 low, F32 high, float* to) { F16::put_in_order(low, high, to); }
  static HWY_INLINE void take_in_order(float const* from, F32& low, F32& high) {
    F16::take_in_order(from, low, high);
  }
};

// Which NaN an addition returns differs between instruction sets; ours is the positive quiet one. Its
// mantissa also survives the rounding of Bf16::store().
HWY_INLINE F32 canonical_nan(F32 value) {
  return hn::IfThenElse(hn::IsNaN(value), as_f32(all_u32(0x7fc00000)), value);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
