// stream_copy() and store_fence().
#include "engine/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/simd/copy.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "engine/cpu/simd/kernels.hpp"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void stream_copy_simd(std::byte* to_bytes, std::byte const* from_bytes, std::size_t bytes) {
  constexpr std::size_t line = 64;
  hn::CappedTag<std::uint8_t, line> const tag;
  std::size_t const lanes = hn::Lanes(tag);
  auto* to = reinterpret_cast<std::uint8_t*>(to_bytes);
  auto const* from = reinterpret_cast<std::uint8_t const*>(from_bytes);

  // A write-combining buffer that leaves as a full line needs no read of the old line: start at one.
  std::size_t const head = std::min(bytes, (line - reinterpret_cast<std::uintptr_t>(to) % line) % line);
  std::memcpy(to, from, head);
  std::size_t at = head;
  for (; bytes - at >= 4 * lanes; at += 4 * lanes) {
    auto const part0 = hn::LoadU(tag, from + at);
    auto const part1 = hn::LoadU(tag, from + at + lanes);
    auto const part2 = hn::LoadU(tag, from + at + 2 * lanes);
    auto const part3 = hn::LoadU(tag, from + at + 3 * lanes);
    hn::Stream(part0, tag, to + at);
    hn::Stream(part1, tag, to + at + lanes);
    hn::Stream(part2, tag, to + at + 2 * lanes);
    hn::Stream(part3, tag, to + at + 3 * lanes);
  }
  for (; bytes - at >= lanes; at += lanes) hn::Stream(hn::LoadU(tag, from + at), tag, to + at);
  std::memcpy(to + at, from + at, bytes - at);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(stream_copy_simd);

void stream_copy(std::byte* to, std::byte const* from, std::size_t bytes) {
  // Below this, what is copied (ids, weights, scales) is soon read by the receiver, and partial lines at both
  // ends weigh more than what streaming saves.
  constexpr std::size_t worth_streaming = 512;
  if (bytes >= worth_streaming) {
    HWY_DYNAMIC_DISPATCH(stream_copy_simd)(to, from, bytes);
  } else if (bytes != 0) {
    std::memcpy(to, from, bytes);
  }
}

void store_fence() noexcept {
#if HWY_ARCH_X86
  // Enough here, where only non-temporal stores are weakly ordered.
  hwy::FlushStream();
#else
  std::atomic_thread_fence(std::memory_order_release);
#endif
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
