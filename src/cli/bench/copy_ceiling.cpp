#include "cli/bench/copy_ceiling.hpp"

#include <sys/mman.h>

#include <cstring>
#include <thread>
#include <vector>

#include "base/check.hpp"
#include "engine/cpu/simd/kernels.hpp"

namespace switchyard::cli {

CopyCeiling::CopyCeiling(int threads) : threads_(threads) {
  auto const bytes = static_cast<std::size_t>(copy_bytes_total);
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw_errno("mmap of the copy buffers");
  memory_.reset(static_cast<std::byte*>(memory));
  ::madvise(memory, bytes, MADV_HUGEPAGE);  // the ceiling is the best case; refused: small pages
  std::memset(memory, 1, bytes);
}

void CopyCeiling::Unmap::operator()(std::byte* memory) const noexcept {
  ::munmap(memory, static_cast<std::size_t>(copy_bytes_total));
}

void CopyCeiling::copy(CopyKind kind) {
  std::vector<std::jthread> helpers;
  for (int part = 1; part < threads_; ++part) {
    helpers.emplace_back([this, kind, part] { copy_part(kind, part); });
  }
  copy_part(kind, 0);
}

void CopyCeiling::copy_part(CopyKind kind, int part) const {
  std::int64_t const begin = copy_bytes * part / threads_;
  auto const bytes = static_cast<std::size_t>(copy_bytes * (part + 1) / threads_ - begin);
  std::byte* const from = memory_.get() + begin;
  std::byte* const to = from + copy_bytes;
  if (kind == CopyKind::libc) {
    std::memcpy(to, from, bytes);
  } else {
    cpu::stream_copy(to, from, bytes);
    cpu::store_fence();
  }
}

}  // namespace switchyard::cli
