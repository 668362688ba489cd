// Splitting tokens over workers: small chunks, taken in order by whoever is free.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

namespace switchyard::cpu {

class TokenChunks {
 public:
  explicit TokenChunks(std::int64_t tokens, std::int64_t chunk = 32) : tokens_(tokens), chunk_(chunk) {}

  // [begin, end) of the next chunk; empty when all are taken.
  std::pair<std::int64_t, std::int64_t> take() noexcept {
    // Relaxed: only hands out numbers; the pool's mutex orders the data.
    std::int64_t const begin = std::min(next_.fetch_add(chunk_, std::memory_order_relaxed), tokens_);
    return {begin, std::min(begin + chunk_, tokens_)};
  }

 private:
  std::int64_t tokens_;
  std::int64_t chunk_;
  std::atomic<std::int64_t> next_{0};
};

}  // namespace switchyard::cpu
