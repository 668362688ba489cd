// The room of rounds in a heap that others fill, free and fragment at the same time.
#include "memory/round_room.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <vector>

#include "memory/shared_segment.hpp"
#include "plan/round_plan.hpp"
#include "support/check.hpp"
#include "support/random.hpp"

namespace switchyard::test {
namespace {

using detail::RoundRoom;

constexpr std::size_t granule_bytes = BlockAllocator::granule;
constexpr std::size_t any = std::numeric_limits<std::size_t>::max();

std::shared_ptr<SymmetricHeap> heap_of(std::size_t granules) {
  std::vector<std::shared_ptr<Segment>> segments{SharedSegment::create((1 + granules) * granule_bytes)};
  return std::make_shared<SymmetricHeap>(std::move(segments), 0, granule_bytes);
}

// Takes what is free, in pieces of a granule.
std::vector<SymmetricHeap::Block> fill(SymmetricHeap& heap) {
  std::vector<SymmetricHeap::Block> blocks;
  while (auto block = heap.allocate(granule_bytes)) blocks.push_back(std::move(*block));
  return blocks;
}

void check_apart(RoundRoom const& room, std::vector<SymmetricHeap::Block> const& blocks) {
  for (auto const& block : blocks)
    check(block.offset + granule_bytes <= room.offset || block.offset >= room.offset + room.bytes,
          "a block of somebody else's lies in the room: ", block.offset);
}

// A dispatch in rounds, whose rows come again when the caller has taken all of the heap that it could get.
TEST(RoundRoom, WhatFittedOnceFitsAgain) {
  Random random(7);
  for (int i = 0; i < 100; ++i) {
    RoundShape const shape{.hidden = 64 * random.between(1, 64), .top_k = random.between(0, 8)};
    auto const heap = heap_of(static_cast<std::size_t>(random.between(16, 128)));
    auto others = fill(*heap);
    std::erase_if(others, [&](auto const&) { return random.between(0, 2) == 0; });
    RoundRooms rooms;
    RoundRoom const room = rooms.take(*heap, any);
    std::vector<std::int64_t> rounds;
    for (std::int64_t left = random.between(1, 5000); left > 0;) {
      std::int64_t rows = left;
      while (rows > 1 && round_bytes(shape, rows) > room.bytes) rows /= 2;
      if (round_bytes(shape, rows) > room.bytes) break;
      rounds.push_back(rows);
      left -= rows;
    }
    for (auto& block : fill(*heap)) others.push_back(std::move(block));
    check_equal(heap->allocator().largest_free(), std::size_t{0}, "bytes that are free");
    check_apart(room, others);
    RoundRoom const again = rooms.take(*heap, any);
    check_equal(again.offset, room.offset, "offset of the room, when nothing is free");
    for (std::int64_t const rows : rounds)
      check(round_bytes(shape, rows) <= again.bytes, "a round of ", rows, " rows fitted, and does not any more");
  }
}

TEST(RoundRoom, IsSharedAndFreedWithItsLastOwner) {
  auto const heap = heap_of(16);
  RoundRooms rooms;
  std::optional<RoundRoom> first = rooms.take(*heap, any);
  check_equal(first->bytes, 12 * granule_bytes, "bytes of the first");
  std::optional<RoundRoom> second = rooms.take(*heap, any);
  check_equal(second->offset, first->offset, "offset of the second");
  check(second->data == heap->heap(0) + second->offset, "data and offset differ");
  first.reset();
  check_equal(heap->allocator().used(), 12 * granule_bytes, "bytes in use while one is left");
  second.reset();
  check_equal(heap->allocator().used(), std::size_t{0}, "bytes in use after the last");
  check_equal(rooms.take(*heap, any).bytes, 12 * granule_bytes, "bytes of a new one");
}

TEST(RoundRoom, GrowsWhenThereIsMoreToBeHad) {
  auto const heap = heap_of(64);
  RoundRooms rooms;
  std::optional<SymmetricHeap::Block> block = heap->allocate(60 * granule_bytes);
  RoundRoom const small = rooms.take(*heap, any);
  check_equal(small.bytes, 3 * granule_bytes, "bytes of the first");
  block.reset();
  RoundRoom const large = rooms.take(*heap, any);
  check(large.bytes > 40 * granule_bytes, "the room did not grow: ", large.bytes);
  check_equal(rooms.take(*heap, any).offset, large.offset, "offset of the next");
  check_equal(heap->allocator().used(), small.bytes + large.bytes, "bytes in use: the small one is still kept");
}

TEST(RoundRoom, TakesNoMoreThanIsUseful) {
  auto const heap = heap_of(64);
  RoundRooms rooms;
  RoundRoom const room = rooms.take(*heap, 3 * granule_bytes + 1);
  check_equal(room.bytes, 4 * granule_bytes, "bytes of the room");
  check_equal(rooms.take(*heap, granule_bytes).offset, room.offset, "offset for a call with less use");
  check(rooms.take(*heap, 8 * granule_bytes).bytes == 8 * granule_bytes, "a call with more use gets no more");
}

TEST(RoundRoom, HasNoBytesWhenNothingIsFreeOrUseful) {
  auto const heap = heap_of(8);
  RoundRooms rooms;
  check_equal(rooms.take(*heap, 0).bytes, std::size_t{0}, "bytes for a call without use");
  auto const blocks = fill(*heap);
  RoundRoom const room = rooms.take(*heap, any);
  check_equal(room.bytes, std::size_t{0}, "bytes of a full heap");
  check(room.data == heap->heap(0), "a room without bytes has an address all the same");
}

}  // namespace
}  // namespace switchyard::test
