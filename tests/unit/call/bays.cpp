#include "call/bays.hpp"

#include <gmock/gmock.h>

#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using testing::HasSubstr;

// Memory that nobody touches.
struct NoSegment final : Segment {
  explicit NoSegment(std::size_t bytes) : Segment(bytes, bytes) {}
};

SlotLayoutBytes layout() {
  return slot_layout({.num_ranks = 2, .num_experts = 4, .max_local_experts = 2, .frames = 3, .max_tokens = 5});
}

std::shared_ptr<SymmetricHeap> heap_for(int bays) {
  return std::make_shared<SymmetricHeap>(
      std::vector<std::shared_ptr<Segment>>{std::make_shared<NoSegment>(layout().bay(bays))}, 0, 0);
}

Bays make_bays(int room) {
  return {heap_for(room), layout(), 3};
}

std::string refusal_of_move(Bays& bays, int frame) {
  try {
    bays.move(frame);
  } catch (InvalidArgument const& error) {
    return error.what();
  }
  return {};
}

TEST(Credits, NameEpochAndBay) {
  for (int frame = 0; frame < max_frames; ++frame) {
    EXPECT_EQ(bay_of_credit(0, frame), frame) << "what nobody has written names the first bay";
    for (int const bay : {0, 1, 15, 16, 255}) {
      std::uint64_t const word = credit_word(77, frame, bay);
      EXPECT_EQ(epoch_of_credit(word), 77U);
      EXPECT_EQ(bay_of_credit(word, frame), bay);
      EXPECT_LT(word, credit_word(78, frame, 0)) << "a later epoch is greater";
      EXPECT_LT(word, credit_revoked);
    }
  }
}

TEST(SlotExperts, AreFoundAgain) {
  for (int const expert : {0, 1, 65535}) {
    for (int const bay : {0, 1, 255}) {
      EXPECT_GE(slot_expert_word(expert, bay), 0);
      EXPECT_EQ(expert_of_word(slot_expert_word(expert, bay)), expert);
      EXPECT_EQ(bay_of_word(slot_expert_word(expert, bay)), bay);
    }
  }
  EXPECT_EQ(expert_of_word(-1), -1);
}

TEST(Bays, FramesHaveTheirOwnAtFirst) {
  Bays bays = make_bays(3);
  for (int frame = 0; frame < 3; ++frame) {
    EXPECT_EQ(bays.of(frame), frame);
    EXPECT_EQ(bays.begin(frame).bay, frame);
  }
}

TEST(Bays, AHeldResultKeepsItsOwn) {
  Bays bays = make_bays(6);
  BayStay const first = bays.begin(1);
  bays.move(1);
  EXPECT_EQ(bays.of(1), 3);
  BayStay const second = bays.begin(1);
  bays.move(1);
  EXPECT_EQ(bays.of(1), 4);
  bays.release(first);
  bays.begin(0);
  bays.move(0);
  EXPECT_EQ(bays.of(0), first.bay) << "what is free is used before the heap grows";
  bays.release(second);
  bays.move(2);
  EXPECT_EQ(bays.of(2), second.bay);
}

// Another thread releases the result while the frame leaves it behind: its bay must not be lost.
TEST(Bays, OneThatWasReleasedBeforeItsFrameLeftIsFree) {
  Bays bays = make_bays(4);
  BayStay const stay = bays.begin(0);
  bays.release(stay);
  bays.move(0);
  bays.begin(1);
  bays.move(1);
  EXPECT_EQ(bays.of(1), stay.bay);
}

// It was released on another thread, which was slow.
TEST(Bays, ALateReleaseIsOfItsOwnStayOnly) {
  Bays bays = make_bays(5);
  BayStay const slow = bays.begin(0);
  BayStay const held = bays.begin(0);
  bays.move(0);
  bays.release(slow);
  bays.move(1);
  EXPECT_NE(bays.of(1), held.bay);
}

TEST(Bays, MemoryEnds) {
  Bays bays = make_bays(4);
  BayStay const stay = bays.begin(0);
  bays.move(0);
  bays.begin(0);
  EXPECT_THAT(refusal_of_move(bays, 0), HasSubstr("seen it and 1 older ones held"));
  EXPECT_EQ(bays.of(0), 3) << "nothing has changed";
  bays.release(stay);
  EXPECT_EQ(refusal_of_move(bays, 0), "");
  EXPECT_EQ(bays.of(0), 0);
}

TEST(Bays, ThereAreAsManyAsACreditCanName) {
  Bays bays = make_bays(1000);
  int moves = 0;
  auto const move_on = [&] {
    bays.begin(moves % 3);  // what is not held is left free
    return refusal_of_move(bays, moves % 3).empty();
  };
  while (move_on()) ++moves;
  EXPECT_EQ(moves, max_bays - 3);
}

TEST(Bays, AResetFreesWhatIsHeld) {
  Bays bays = make_bays(5);
  BayStay const old = bays.begin(0);
  bays.move(0);
  bays.forget();
  EXPECT_EQ(bays.of(0), 3) << "frames stay where they are";
  bays.begin(1);
  bays.move(1);
  EXPECT_EQ(bays.of(1), 0);
  bays.begin(1);
  bays.move(1);
  bays.release(old);
  EXPECT_THAT(refusal_of_move(bays, 2), HasSubstr("max_results")) << "bay 0 is of another result now";
}

TEST(Bays, ACreditNamesABayOfTheHeap) {
  EXPECT_EQ(most_bays(*heap_for(4), layout(), 0), 4);
  EXPECT_EQ(most_bays(*heap_for(999), layout(), 0), max_bays);
}

TEST(HeldResults, MayMoveOnlyWhenAtRestAndOutsideOfGraphs) {
  auto const refusal = [](HeldResult const& held) -> std::string {
    try {
      check_may_move(held);
    } catch (InvalidArgument const& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_EQ(refusal({.frames = 2}), "");
  EXPECT_THAT(refusal({.received = false, .frames = 2}), HasSubstr("hook"));
  EXPECT_THAT(refusal({.captured = true, .frames = 2}), HasSubstr("CUDA graph"));
}

}  // namespace
}  // namespace switchyard
