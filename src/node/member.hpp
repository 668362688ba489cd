// A rank as errors name it, among ranks that are linked to one another.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct Member {
  int rank = 0;   // of the job
  int node = -1;  // -1: the job has one node, which needs no name

  // "rank 5", or "rank 5 (node 1)".
  [[nodiscard]] std::string text() const {
    std::string const name = "rank " + std::to_string(rank);
    return node < 0 ? name : name + " (node " + std::to_string(node) + ")";
  }
};

// Ranks 0 to size - 1 of a job of one node.
inline std::vector<Member> members_of_one_node(int size) {
  std::vector<Member> members;
  for (int rank = 0; rank < size; ++rank) members.push_back({.rank = rank});
  return members;
}

}  // namespace switchyard
