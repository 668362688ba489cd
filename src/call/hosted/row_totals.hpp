// How many rows each source sends to each receiver, as every rank finds them next to the announces of a dispatch:
// so each source finds by itself where its rows begin in every result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.hpp"
#include "control/announce.hpp"

namespace switchyard {

class RowTotals {
 public:
  // To be called when the announces of the epoch are there. Throws InvalidArgument, naming the source, when a
  // number is negative or above `most`.
  RowTotals(Link const& link, std::uint64_t epoch, std::int64_t most) : ranks_(link.num_ranks) {
    for (int source = 0; source < ranks_; ++source) {
      auto const row = link.control.totals(link.rank, source, epoch);
      totals_.insert(totals_.end(), row.begin(), row.end());  // read once: what is checked is what is used
      for (std::int64_t const rows : row_of(source)) {
        require(rows >= 0 && rows <= most, "rank {}: rows: expected 0..{}, seen {}", source, most, rows);
      }
    }
  }

  [[nodiscard]] std::int64_t rows_of(int receiver) const { return first_row(ranks_, receiver); }
  // Of the source's rows in the receiver's result: those of the sources before come first.
  [[nodiscard]] std::int64_t first_row(int source, int receiver) const {
    std::int64_t rows = 0;
    for (int before = 0; before < source; ++before) rows += row_of(before)[static_cast<std::size_t>(receiver)];
    return rows;
  }

 private:
  [[nodiscard]] std::span<std::int64_t const> row_of(int source) const {
    auto const ranks = static_cast<std::size_t>(ranks_);
    return std::span(totals_).subspan(static_cast<std::size_t>(source) * ranks, ranks);
  }

  int ranks_;
  std::vector<std::int64_t> totals_;  // by source, then by receiver
};

}  // namespace switchyard
