// Notices as they travel, and bytes that are none.
#include "scale_out/notice.hpp"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "scale_out/port_layout.hpp"
#include "support/random.hpp"

namespace switchyard::scale_out {
namespace {

using Room = std::array<std::byte, notice_bytes>;

Room written(Notice const& notice) {
  Room room{};
  write_notice(notice, room);
  return room;
}

Notice const usual{.kind = Notice::Kind::failed,
                   .epoch = std::uint64_t{1} << 40U,
                   .code = ErrorCode::peer_lost,
                   .rank = 4,
                   .peer = -1,
                   .phase = "combine/sum",
                   .text = "rank 4: it is gone"};

TEST(Notice, ComesBackAsItWas) {
  auto const read = read_notice(written(usual), 5);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->kind, usual.kind);
  EXPECT_EQ(read->epoch, usual.epoch);
  EXPECT_EQ(read->code, usual.code);
  EXPECT_EQ(read->rank, 4);
  EXPECT_EQ(read->peer, -1);
  EXPECT_EQ(read->phase, usual.phase);
  EXPECT_EQ(read->text, usual.text);
}

// No character is cut in two: each of these has two bytes.
TEST(Notice, LongTextsAreCut) {
  std::string umlauts;
  for (int i = 0; i < 600; ++i) umlauts += "\u00e4";
  for (std::string const& text : {umlauts, "x" + umlauts}) {
    Notice notice = usual;
    notice.text = text;
    notice.phase = text;
    auto const read = read_notice(written(notice), 5);
    ASSERT_TRUE(read);
    EXPECT_TRUE(text.starts_with(read->text));
    EXPECT_GT(read->text.size(), 400U);
    EXPECT_EQ((text.size() - read->text.size()) % 2, 0U);
    EXPECT_EQ((text.size() - read->phase.size()) % 2, 0U);
  }
}

TEST(Notice, RefusesWhatIsNone) {
  Room const good = written(usual);
  EXPECT_FALSE(read_notice(good, 4)) << "a rank that there is not";
  EXPECT_FALSE(read_notice(std::span(good).first(notice_bytes - 1), 5));
  EXPECT_FALSE(read_notice(Room{}, 5));
  for (std::size_t const at : {0U, 4U, 16U}) {  // magic, kind, code
    Room bad = good;
    bad[at] ^= std::byte{0x40};
    EXPECT_FALSE(read_notice(bad, 5)) << "byte " << at;
  }
}

TEST(Notice, SurvivesAnything) {
  test::Random random(1);
  for (int round = 0; round < 20000; ++round) {
    Room room = written(usual);
    for (int changes = random.between(1, 40); changes > 0; --changes)
      room[static_cast<std::size_t>(random.below(notice_bytes))] = static_cast<std::byte>(random.bits());
    auto const read = read_notice(room, 5);
    if (!read) continue;
    EXPECT_TRUE(read->rank >= -1 && read->rank < 5 && read->peer >= -1 && read->peer < 5);
    EXPECT_LE(read->text.size(), notice_bytes);
  }
}

}  // namespace
}  // namespace switchyard::scale_out
