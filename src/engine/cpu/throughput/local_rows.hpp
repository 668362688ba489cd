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
  LocalRows(RowWriter const& writer, std::int64_t tokens)
      : writer_(writer), taken_(static_cast<std::size_t>(tokens)), chunks_(tokens, chunk) {}

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

  // Relaxed: it only says who writes the token; the worker pool's mutex orders the data.
  bool take(std::int64_t token) {
    return taken_[static_cast<std::size_t>(token)].exchange(1, std::memory_order_relaxed) == 0;
  }

  RowWriter const& writer_;
  std::vector<std::atomic<std::uint8_t>> taken_;
  TokenChunks chunks_;
};

}  // namespace switchyard::cpu
