// What this machine's memory gives to plain copies: the yardstick of dispatch and combine.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace switchyard::cli {

// What a rank copies at a time: far more than caches hold, and what all ranks of a machine have fits into its
// memory.
constexpr std::int64_t copy_bytes(int on_machine) {
  return std::min(std::int64_t{64} << 20, (std::int64_t{2} << 30) / on_machine);
}
// Source and target of one rank.
constexpr std::int64_t copy_bytes_total(int on_machine) {
  return 2 * copy_bytes(on_machine);
}
// Inside a GPU.
inline constexpr std::int64_t gpu_copy_bytes = copy_bytes(1);

enum class CopyKind : std::uint8_t { libc, non_temporal };

// The copy buffers of one rank, every page touched, and the threads that its engine would use.
class CopyCeiling {
 public:
  // `bytes`: of a copy.
  CopyCeiling(std::int64_t bytes, int threads);
  void copy(CopyKind kind);

 private:
  void copy_part(CopyKind kind, int part) const;

  struct Unmap {
    std::size_t bytes;
    void operator()(std::byte* memory) const noexcept;
  };
  std::int64_t bytes_;
  int threads_;
  std::unique_ptr<std::byte, Unmap> memory_;
};

}  // namespace switchyard::cli
