// Both ends of a ring of slots, each for itself.
#include "scale_out/slots.hpp"

#include <gtest/gtest.h>

#include <set>

namespace switchyard::scale_out {
namespace {

TEST(SlotsThere, EachIsTakenOnce) {
  SlotsThere slots(3);
  std::set<int> taken;
  for (int i = 0; i < 3; ++i) taken.insert(slots.take().value());
  EXPECT_EQ(taken, (std::set{0, 1, 2}));
  EXPECT_FALSE(slots.take());
}

TEST(SlotsThere, OnlyACreditForItsUseFreesASlot) {
  SlotsThere slots(1);
  for (std::uint64_t use = 1; use < 600; ++use) {
    EXPECT_FALSE(slots.free(0, use % 256)) << "not out";
    ASSERT_EQ(slots.take(), 0);
    EXPECT_FALSE(slots.free(0, use % 256)) << "taken, but not sent";
    ASSERT_TRUE(slots.send(0));
    EXPECT_FALSE(slots.send(0));
    EXPECT_EQ(slots.num_out(), 1);
    EXPECT_FALSE(slots.free(0, (use + 255) % 256)) << "the use before";
    EXPECT_FALSE(slots.free(1, use % 256)) << "no slot";
    EXPECT_TRUE(slots.free(0, use % 256));
    EXPECT_EQ(slots.num_out(), 0);
  }
}

TEST(SlotsHere, FillAndEmpty) {
  SlotsHere slots(2);
  EXPECT_FALSE(slots.fill(2, 1));
  EXPECT_FALSE(slots.fill(-1, 1));
  EXPECT_FALSE(slots.empty(0)) << "it is empty";
  ASSERT_TRUE(slots.fill(0, 1));
  EXPECT_FALSE(slots.fill(0, 1)) << "full";
  EXPECT_FALSE(slots.empty(0)) << "nobody has it";
  slots.hand_out(0);
  EXPECT_FALSE(slots.fill(0, 2)) << "somebody has it";
  EXPECT_EQ(slots.empty(0), 1U);
  ASSERT_TRUE(slots.fill(0, 2));
  slots.hand_out(0);
  EXPECT_EQ(slots.empty(0), 2U) << "the second use";
}

TEST(SlotsHere, LeftBefore) {
  SlotsHere slots(3);
  ASSERT_TRUE(slots.fill(0, 5));
  ASSERT_TRUE(slots.fill(1, 6));
  ASSERT_TRUE(slots.fill(2, 5));
  slots.hand_out(2);
  EXPECT_EQ(slots.left_before(6), (std::vector{0})) << "what waits, and is older";
  EXPECT_EQ(slots.full(), (std::vector{0, 1, 2}));
}

}  // namespace
}  // namespace switchyard::scale_out
