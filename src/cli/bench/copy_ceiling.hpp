// What this machine's memory gives to plain copies: the yardstick of dispatch and combine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace switchyard::cli {

inline constexpr std::int64_t copy_bytes = std::int64_t{64} << 20;
// Source and target of one rank.
inline constexpr std::int64_t copy_bytes_total = 2 * copy_bytes;

enum class CopyKind : std::uint8_t { libc, non_temporal };

// The copy buffers of one rank, every page touched, and the threads that its engine would use.
class CopyCeiling {
 public:
  explicit CopyCeiling(int threads);
  void copy(CopyKind kind);

 private:
  void copy_part(CopyKind kind, int part) const;

  struct Unmap {
    void operator()(std::byte* memory) const noexcept;
  };
  int threads_;
  std::unique_ptr<std::byte, Unmap> memory_;
};

}  // namespace switchyard::cli
