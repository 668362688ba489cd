#include "plan/experts/align.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace switchyard::experts {

namespace {

struct Pair {
  int common = 0;
  int block = 0;
  int place = 0;

  bool operator<(Pair const& other) const noexcept {
    if (common != other.common) return common > other.common;
    return block != other.block ? block < other.block : place < other.place;
  }
};

// Blocks of neighbouring slots that may stand at each other's places, `first` and the `count - 1` behind it.
struct Blocks {
  int first = 0;
  int count = 0;
  int size = 0;  // slots of each
};

// How many experts each block has in common with what was at each place before. `slots_of`: of each expert, before.
std::vector<Pair> pairs(Blocks const& blocks, std::vector<int> const& slots,
                        std::vector<std::vector<int>> const& slots_of) {
  std::vector<int> common(at(blocks.count) * at(blocks.count), 0);
  for (int i = 0; i < blocks.count * blocks.size; ++i) {
    for (int const old : slots_of[at(slots[at(blocks.first * blocks.size + i)])]) {
      int const place = old / blocks.size - blocks.first;
      if (place >= 0 && place < blocks.count) ++common[at(i / blocks.size) * at(blocks.count) + at(place)];
    }
  }
  std::vector<Pair> found;
  for (int block = 0; block < blocks.count; ++block) {
    int const* const row = common.data() + at(block) * at(blocks.count);
    for (int place = 0; place < blocks.count; ++place)
      if (row[place] > 0) found.push_back({row[place], block, place});
  }
  std::sort(found.begin(), found.end());
  return found;
}

// The place of each block. Those that have nothing in common with any free place take what is left, in their order.
std::vector<int> places(int count, std::vector<Pair> const& pairs) {
  std::vector<int> place_of(at(count), -1);
  std::vector<char> taken(at(count), 0);
  for (Pair const& pair : pairs) {
    if (place_of[at(pair.block)] >= 0 || taken[at(pair.place)] != 0) continue;
    place_of[at(pair.block)] = pair.place;
    taken[at(pair.place)] = 1;
  }
  int free = 0;
  for (int& place : place_of) {
    if (place >= 0) continue;
    while (taken[at(free)] != 0) ++free;
    place = free++;
  }
  return place_of;
}

void arrange(Blocks const& blocks, std::vector<int>& slots, std::vector<std::vector<int>> const& slots_of) {
  std::vector<int> const place_of = places(blocks.count, pairs(blocks, slots, slots_of));
  std::vector<int> const before = slots;
  for (int block = 0; block < blocks.count; ++block) {
    auto const from = before.begin() + (blocks.first + block) * blocks.size;
    std::copy(from, from + blocks.size, slots.begin() + (blocks.first + place_of[at(block)]) * blocks.size);
  }
}

}  // namespace

std::vector<int> aligned(Placement const& placement, Moves const& moves) {
  Cluster const& cluster = placement.cluster();
  std::vector<std::vector<int>> slots_of(at(cluster.experts));
  for (int slot = 0; slot < cluster.replicas; ++slot) slots_of[at(moves.old(slot))].push_back(slot);
  std::vector<int> slots = placement.experts();
  arrange({0, cluster.domains(), cluster.slots_per_domain()}, slots, slots_of);
  for (int domain = 0; domain < cluster.domains(); ++domain)
    arrange({domain * cluster.gpus_per_domain(), cluster.gpus_per_domain(), cluster.slots_per_gpu()}, slots,
            slots_of);
  for (int gpu = 0; gpu < cluster.gpus; ++gpu)
    arrange({gpu * cluster.slots_per_gpu(), cluster.slots_per_gpu(), 1}, slots, slots_of);
  return slots;
}

}  // namespace switchyard::experts
