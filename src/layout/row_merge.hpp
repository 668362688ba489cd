// A dispatch in rounds: where the rows of a round's result belong in the whole result. Both have the same order: by
// group (flat: there is one; expanded: a local expert each, from a multiple of the alignment on), then by source
// rank, then by token. Each round takes a later range of every source's tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard {

// Rows that a receiver gets, by group and source.
struct RowCounts {
  int groups = 1;
  int sources = 1;
  std::vector<std::int64_t> of{};  // [groups][sources]

  [[nodiscard]] std::int64_t& at(int group, int source) { return of[index(group, source)]; }
  [[nodiscard]] std::int64_t at(int group, int source) const { return of[index(group, source)]; }

 private:
  [[nodiscard]] std::size_t index(int group, int source) const {
    return static_cast<std::size_t>(group) * static_cast<std::size_t>(sources) + static_cast<std::size_t>(source);
  }
};

// Adjacent rows that stay adjacent.
struct RowSegment {
  std::int64_t part = 0;   // first row in the round's result
  std::int64_t whole = 0;  // first row in the whole result
  std::int64_t rows = 0;
};

class RowMerge {
 public:
  // `total`: the counts of all rounds together.
  RowMerge(RowCounts const& total, int alignment);

  // Adds the next round, by its counts, and returns where its rows belong. Throws InvalidArgument when the rounds
  // add up to more than the total.
  std::vector<RowSegment> add(RowCounts const& part);

 private:
  int alignment_;
  RowCounts next_;  // where the next round's rows begin in the whole result
  RowCounts left_;  // rows that are still to come
};

}  // namespace switchyard
