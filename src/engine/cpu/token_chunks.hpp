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
    while (take_one(work)) continue;
  }
  // The same for one chunk; returns whether there was one.
  template <typename Work>
  bool take_one(Work const& work) {
    // Relaxed, as it only hands out numbers; the worker pool's mutex orders the data.
    std::int64_t const begin = std::min(next_.fetch_add(chunk_, std::memory_order_relaxed), tokens_);
    std::int64_t const end = std::min(begin + chunk_, tokens_);
    for (std::int64_t token = begin; token < end; ++token) work(token);
    return begin != end;
  }

 private:
  std::int64_t tokens_;
  std::int64_t chunk_;
  std::atomic<std::int64_t> next_{0};
};

}  // namespace switchyard::cpu
