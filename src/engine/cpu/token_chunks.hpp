// Splits tokens over workers: small chunks, taken in order by whoever is free.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace switchyard::cpu {

class TokenChunks {
 public:
  explicit TokenChunks(std::int64_t tokens, std::int64_t chunk = 32) : tokens_(tokens), chunk_(chunk) {}

  // Calls `work` with each token of the chunks that the calling worker takes, until none is left.
  template <typename Work>
  void for_each(Work const& work) {
    for (;;) {
      // Relaxed, as it only hands out numbers; the worker pool's mutex orders the data.
      std::int64_t const begin = std::min(next_.fetch_add(chunk_, std::memory_order_relaxed), tokens_);
      std::int64_t const end = std::min(begin + chunk_, tokens_);
      if (begin == end) return;
      for (std::int64_t token = begin; token < end; ++token) work(token);
    }
  }

 private:
  std::int64_t tokens_;
  std::int64_t chunk_;
  std::atomic<std::int64_t> next_{0};
};

}  // namespace switchyard::cpu
