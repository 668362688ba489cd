#include "cli/bench/copy_ceiling.hpp"

#include <sys/mman.h>

#include <cstring>
#include <thread>
#include <vector>

#include "base/check.hpp"
#include "engine/cpu/simd/kernels.hpp"

namespace switchyard::cli {

CopyCeiling::CopyCeiling(std::int64_t bytes, int threads) : bytes_(bytes), threads_(threads) {
  auto const both = static_cast<std::size_t>(2 * bytes_);
  void* const memory = ::mmap(nullptr, both, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw_errno("mmap of the copy buffers");
  memory_ = {static_cast<std::byte*>(memory), Unmap{both}};
  ::madvise(memory, both, MADV_HUGEPAGE);  // the ceiling is the best case; refused: small pages
  std::memset(memory, 1, both);
}

void CopyCeiling::Unmap::operator()(std::byte* memory) const noexcept {
  ::munmap(memory, bytes);
}

void CopyCeiling::copy(CopyKind kind) {
  std::vector<std::jthread> helpers;
  for (int part = 1; part < threads_; ++part) {
    helpers.emplace_back([this, kind, part] { copy_part(kind, part); });
  }
  copy_part(kind, 0);
}

void CopyCeiling::copy_part(CopyKind kind, int part) const {
  std::int64_t const begin = bytes_ * part / threads_;
  auto const bytes = static_cast<std::size_t>(bytes_ * (part + 1) / threads_ - begin);
  std::byte* const from = memory_.get() + begin;
  std::byte* const to = from + bytes_;
  if (kind == CopyKind::libc) {
    std::memcpy(to, from, bytes);
  } else {
    cpu::stream_copy(to, from, bytes);
    cpu::store_fence();
  }
}

}  // namespace switchyard::cli
