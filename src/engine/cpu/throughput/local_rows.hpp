// The rows of a dispatch that stay on this rank's node, token by token, by whoever comes to a token first: while a
// token's row is in the cache because it goes to another node, or later.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/throughput/place.hpp"
#include "engine/cpu/token_chunks.hpp"

namespace switchyard::cpu {

class LocalRows {
 public:
  // `threads`: how many use it.
  LocalRows(RowWriter const& writer, std::int64_t tokens, int threads)
      : writer_(writer), alone_(threads <= 1), taken_(static_cast<std::size_t>(tokens)), chunks_(tokens, chunk) {}

  // Writes the token's rows unless somebody else has taken them. `row` is its row, as it travels.
  void write(std::int64_t token, LoadedRow const& row) {
    if (take(token)) writer_.store_rows(token, row);
  }
  // Takes tokens until none is left.
  void write_all() {
    RowLoader loader(writer_.source());
    while (write_some(loader)) continue;
    store_fence();  // the release of the flags does not order non-temporal stores
  }
  // Takes a few more tokens; returns whether there were any. `loader` belongs to the calling thread.
  bool write_some(RowLoader& loader) {
    return chunks_.take_one([&](std::int64_t token) {
      if (writer_.has_rows(token) && take(token)) writer_.store_rows(token, loader.load(token));
    });
  }

 private:
  static constexpr std::int64_t chunk = 8;

  // Relaxed: it only says who writes the token; where there are several threads, the worker pool's mutex orders the
  // data. Whoever is alone need not exchange, which would wait until the non-temporal stores before it have left.
  bool take(std::int64_t token) {
    auto& taken = taken_[static_cast<std::size_t>(token)];
    if (!alone_) return taken.exchange(1, std::memory_order_relaxed) == 0;
    bool const was_taken = taken.load(std::memory_order_relaxed) != 0;
    taken.store(1, std::memory_order_relaxed);
    return !was_taken;
  }

  RowWriter const& writer_;
  bool alone_;
  std::vector<std::atomic<std::uint8_t>> taken_;
  TokenChunks chunks_;
};

}  // namespace switchyard::cpu
