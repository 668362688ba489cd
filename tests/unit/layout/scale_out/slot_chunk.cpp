// The headers of chunks in low-latency mode: what one says must fit into a call and into the chunk.
#include "layout/scale_out/slot_chunk.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <vector>

#include "switchyard/error.hpp"

namespace switchyard::scale_out {
namespace {

constexpr SlotChunkTerms terms{.rank = 7, .frames = 2, .max_tokens = 5, .top_k = 3};

SlotChunkHeader asking() {
  return {.magic = slot_chunk_magic,
          .kind = SlotChunkKind::asks,
          .epoch = 4,
          .digest = 11,
          .masked = 2,
          .frame = 1,
          .combine = 3,
          .bytes = sizeof(SlotChunkHeader) + 8,
          .stream = 6,
          .first = 2,
          .count = 2};
}

std::vector<std::byte> chunk_of(SlotChunkHeader const& header, std::size_t bytes) {
  std::vector<std::byte> chunk(bytes);
  store(chunk.data(), header);
  return chunk;
}

TEST(SlotChunk, IsReadAsItWasWritten) {
  SlotChunkHeader const seen = read_slot_header(chunk_of(asking(), 100), terms);
  EXPECT_EQ(seen.kind, SlotChunkKind::asks);
  EXPECT_EQ(seen.epoch, 4U);
  EXPECT_EQ(seen.digest, 11U);
  EXPECT_EQ(seen.masked, 2U);
  EXPECT_EQ(seen.frame, 1U);
  EXPECT_EQ(seen.combine, 3U);
  EXPECT_EQ(seen.first, 2U);
  EXPECT_EQ(seen.count, 2U);
}

TEST(SlotChunk, WeightsGoToTheirPlaces) {
  auto chunk = chunk_of(asking(), 72);
  std::array<float, 2> const sent{1.5F, -2};
  store_all<float>(chunk.data() + sizeof(SlotChunkHeader), sent);
  std::vector<float> weights(6, 9);
  read_weights(chunk, asking(), weights);
  EXPECT_EQ(weights, (std::vector<float>{9, 9, 1.5F, -2, 9, 9}));
  std::vector<float> few(5);
  EXPECT_THROW(read_weights(chunk, asking(), few), InvalidArgument);
}

using Spoil = std::function<void(SlotChunkHeader&)>;

TEST(SlotChunk, WhatNoCallHasIsRefused) {
  std::vector<Spoil> const spoils{
      [](SlotChunkHeader& h) { h.magic ^= 1; },
      [](SlotChunkHeader& h) { h.kind = static_cast<SlotChunkKind>(0); },
      [](SlotChunkHeader& h) { h.kind = static_cast<SlotChunkKind>(5); },
      [](SlotChunkHeader& h) { h.epoch = 0; },
      [](SlotChunkHeader& h) { h.frame = 2; },
      [](SlotChunkHeader& h) { h.bytes = sizeof(SlotChunkHeader) - 1; },
      [](SlotChunkHeader& h) { h.bytes = 101; },
      [](SlotChunkHeader& h) { h.stream = 16; },
      [](SlotChunkHeader& h) { h.first = 5; },
      [](SlotChunkHeader& h) { h.first = ~0U; },
      [](SlotChunkHeader& h) { h.count = ~0U; },
      [](SlotChunkHeader& h) { h.count = 0; },
      [](SlotChunkHeader& h) { h.reserved = 1; },
      [](SlotChunkHeader& h) { h.kind = SlotChunkKind::sums; },  // of 6 tokens, where there are 5 at most
  };
  for (std::size_t i = 0; i < spoils.size(); ++i) {
    SlotChunkHeader header = asking();
    spoils[i](header);
    EXPECT_THROW(read_slot_header(chunk_of(header, 100), terms), InvalidArgument) << "spoilt in way " << i;
  }
  EXPECT_THROW(read_slot_header(chunk_of(asking(), 100), {.rank = 7, .max_tokens = 1, .top_k = 3}),
               InvalidArgument);
  std::vector<std::byte> const few(63);
  EXPECT_THROW(read_slot_header(few, terms), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::scale_out
