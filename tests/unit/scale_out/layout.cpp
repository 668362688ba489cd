// Where everything lies in a port's memory, and what does not fit into the numbers that name it.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "scale_out/port_layout.hpp"
#include "switchyard/error.hpp"

namespace switchyard::scale_out {
namespace {

std::vector<Place> all_places(PortLayout const& layout, PortSizes const& sizes, int neighbours) {
  std::vector<Place> places;
  for (int neighbour = 0; neighbour < neighbours; ++neighbour) {
    for (int place = 0; place < letter_places; ++place) {
      places.push_back(layout.letter_in(neighbour, place));
      places.push_back(layout.letter_out(neighbour, place));
    }
    for (int place = 0; place < notice_places; ++place) {
      places.push_back(layout.notice_in(neighbour, place));
      places.push_back(layout.notice_out(neighbour, place));
    }
    for (int slot = 0; slot < sizes.slots; ++slot) places.push_back(layout.chunk_in(neighbour, slot));
  }
  for (int slot = 0; slot < sizes.send_slots; ++slot) places.push_back(layout.chunk_out(slot));
  return places;
}

TEST(PortLayout, NoTwoPlacesMeet) {
  for (PortSizes const sizes :
       {PortSizes{0, 0, 0, 0}, PortSizes{1, 1, 1, 1}, PortSizes{100, 1000, 4, 7}, PortSizes{129, 127, 5, 0}}) {
    for (int const neighbours : {1, 2, 5}) {
      PortLayout const layout(sizes, neighbours);
      auto places = all_places(layout, sizes, neighbours);
      std::erase_if(places, [](Place const& place) { return place.bytes == 0; });
      std::ranges::sort(places, {}, &Place::offset);
      std::size_t end = 0;
      for (Place const& place : places) {
        EXPECT_GE(place.offset, end);
        EXPECT_EQ(place.offset % 128, 0U);
        end = place.offset + place.bytes;
      }
      EXPECT_LE(end, layout.bytes());
      EXPECT_LE(layout.bytes(), end + 127);
    }
  }
}

TEST(PortLayout, PlacesHaveTheirSizes) {
  PortLayout const layout({.letter_bytes = 100, .slot_bytes = 1000, .slots = 4, .send_slots = 7}, 3);
  EXPECT_EQ(layout.letter_in(2, 1).bytes, 100U);
  EXPECT_EQ(layout.chunk_in(0, 3).bytes, 1000U);
  EXPECT_EQ(layout.chunk_out(6).bytes, 1000U);
  EXPECT_EQ(layout.notice_out(1, 0).bytes, notice_bytes);
}

TEST(PortLayout, RefusesPlacesThatThereAreNot) {
  PortLayout const layout({.letter_bytes = 100, .slot_bytes = 1000, .slots = 4, .send_slots = 7}, 3);
  EXPECT_THROW(static_cast<void>(layout.letter_in(3, 0)), InvalidArgument);
  EXPECT_THROW(static_cast<void>(layout.letter_in(-1, 0)), InvalidArgument);
  EXPECT_THROW(static_cast<void>(layout.letter_out(0, 4)), InvalidArgument);
  EXPECT_THROW(static_cast<void>(layout.chunk_in(0, 4)), InvalidArgument);
  EXPECT_THROW(static_cast<void>(layout.chunk_out(7)), InvalidArgument);
  EXPECT_THROW(static_cast<void>(layout.notice_in(0, notice_places)), InvalidArgument);
}

TEST(PortLayout, RefusesMoreThanTagsName) {
  EXPECT_NO_THROW(PortLayout({.slot_bytes = 1, .slots = 1024}, 2048));
  EXPECT_THROW(PortLayout({.slots = 1025}, 1), InvalidArgument);
  EXPECT_THROW(PortLayout({.slots = -1}, 1), InvalidArgument);
  EXPECT_THROW(PortLayout({.send_slots = -1}, 1), InvalidArgument);
  EXPECT_THROW(PortLayout({}, 2049), InvalidArgument);
  EXPECT_THROW(PortLayout({}, 0), InvalidArgument);
  EXPECT_THROW(PortLayout({.letter_bytes = ~std::size_t{0}}, 1), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::scale_out
