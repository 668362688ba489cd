// A placement's sums after any steps, and what it foretells of a step, against a placement that is made anew.
#include "plan/experts/placement.hpp"

#include <gtest/gtest.h>

#include "support/experts.hpp"

namespace switchyard::test {
namespace {

using experts::Amount;
using experts::Cluster;
using experts::Placement;

// 8 GPUs with 4 slots each, and 20 experts.
Cluster small_cluster() {
  return Cluster({.layers = 1, .experts = 20, .replicas = 32, .groups = 1, .nodes = 2, .gpus = 8});
}

std::vector<int> random_slots(Random& random) {
  std::vector<int> slots;
  for (int i = 0; i < 32; ++i) slots.push_back(i < 20 ? i : random.between(0, 19));
  return slots;
}

void expect_equal(Placement const& seen, Placement const& expected) {
  ASSERT_EQ(seen.experts(), expected.experts());
  for (int gpu = 0; gpu < 8; ++gpu) EXPECT_EQ(seen.load(gpu), expected.load(gpu)) << "GPU " << gpu;
  EXPECT_EQ(seen.most_load(), expected.most_load());
  for (int expert = 0; expert < 20; ++expert) {
    EXPECT_EQ(seen.replicas(expert), expected.replicas(expert));
    EXPECT_EQ(seen.share(expert), expected.share(expert));
    std::vector<int> slots;
    for (int slot = seen.first_slot(expert); slot >= 0; slot = seen.next_slot(slot)) slots.push_back(slot);
    std::sort(slots.begin(), slots.end());
    std::vector<int> all;
    for (int slot = 0; slot < 32; ++slot)
      if (seen.expert(slot) == expert) all.push_back(slot);
    EXPECT_EQ(slots, all) << "expert " << expert;
  }
}

Amount most_of_gpus(Placement const& placement, std::vector<int> const& gpus) {
  Amount most = 0;
  for (int const gpu : gpus) most = std::max(most, placement.load(gpu));
  return most;
}

std::vector<int> gpus_with(Placement const& placement, int one, int two) {
  std::vector<int> gpus;
  for (int slot = 0; slot < 32; ++slot)
    if (placement.expert(slot) == one || placement.expert(slot) == two) gpus.push_back(slot / 4);
  return gpus;
}

void swap_some(Placement& placement, int slot, int other) {
  if (slot / 4 == other / 4) return;
  Amount const foretold = placement.most_load_after_swap(slot, other);
  placement.swap(slot, other);
  EXPECT_EQ(foretold, most_of_gpus(placement, {slot / 4, other / 4}));
}

void replace_some(Placement& placement, int slot, int expert) {
  int const before = placement.expert(slot);
  if (before == expert || placement.replicas(before) == 1) return;
  std::vector<int> const changed = gpus_with(placement, before, expert);
  Amount const foretold = placement.most_load_after_replace(slot, expert);
  placement.replace(slot, expert);
  EXPECT_EQ(foretold, most_of_gpus(placement, changed));
}

TEST(ExpertPlacement, StepsDoWhatTheyForetell) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    Random random(seed);
    std::vector<Amount> loads;
    for (int i = 0; i < 20; ++i) loads.push_back(random.below(100000));
    Placement placement(small_cluster(), loads, random_slots(random));
    for (int step = 0; step < 40; ++step) {
      if (random.chance(50)) {
        swap_some(placement, random.between(0, 31), random.between(0, 31));
      } else {
        replace_some(placement, random.between(0, 31), random.between(0, 19));
      }
      expect_equal(placement, Placement(small_cluster(), loads, placement.experts()));
    }
  }
}

}  // namespace
}  // namespace switchyard::test
