#include "layout/row_merge.hpp"

#include "base/check.hpp"

namespace switchyard {

namespace {

// Turns counts into the first row of each (group, source).
RowCounts begins_of(RowCounts const& counts, int alignment) {
  RowCounts begins = counts;
  std::int64_t row = 0;
  for (int group = 0; group < counts.groups; ++group) {
    row = (row + alignment - 1) / alignment * alignment;
    for (int source = 0; source < counts.sources; ++source) {
      begins.at(group, source) = row;
      row += counts.at(group, source);
    }
  }
  return begins;
}

}  // namespace

RowMerge::RowMerge(RowCounts const& total, int alignment)
    : alignment_(alignment), next_(begins_of(total, alignment)), left_(total) {}

std::vector<RowSegment> RowMerge::add(RowCounts const& part) {
  require(part.groups == left_.groups && part.sources == left_.sources,
          "counts of a round: expected {} groups of {} sources, seen {} of {}", left_.groups, left_.sources,
          part.groups, part.sources);
  RowCounts const begins = begins_of(part, alignment_);
  std::vector<RowSegment> segments;
  for (int group = 0; group < part.groups; ++group) {
    for (int source = 0; source < part.sources; ++source) {
      std::int64_t const rows = part.at(group, source);
      require(rows >= 0 && rows <= left_.at(group, source), "rows of a round: expected 0..{}, seen {}",
              left_.at(group, source), rows);
      if (rows == 0) continue;
      segments.push_back({.part = begins.at(group, source), .whole = next_.at(group, source), .rows = rows});
      next_.at(group, source) += rows;
      left_.at(group, source) -= rows;
    }
  }
  return segments;
}

}  // namespace switchyard
