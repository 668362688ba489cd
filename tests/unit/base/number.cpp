// Whole numbers from text.
#include "base/number.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace switchyard {
namespace {

TEST(Number, DecimalDigitsOnly) {
  EXPECT_EQ(parse_number<int>("0"), 0);
  EXPECT_EQ(parse_number<int>("-17"), -17);
  EXPECT_EQ(parse_number<std::uint64_t>("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
  for (char const* text : {"", " 1", "1 ", "+1", "1.5", "1e3", "0x10", "1k", "-", "--1", "one"})
    EXPECT_EQ(parse_number<int>(text), std::nullopt) << text;
}

TEST(Number, WhatDoesNotFitIsNoneNotTheLargest) {
  EXPECT_EQ(parse_number<std::uint64_t>("18446744073709551616"), std::nullopt);
  EXPECT_EQ(parse_number<std::uint64_t>("-1"), std::nullopt);
  EXPECT_EQ(parse_number<std::int64_t>("9223372036854775808"), std::nullopt);
  EXPECT_EQ(parse_number<std::uint16_t>("65536"), std::nullopt);
}

TEST(Number, RefusalsNameWhatWasExpectedAndSeen) {
  EXPECT_EQ(number_between(1, 8, "--ranks", "8"), 8);
  for (char const* text : {"0", "9", "-1", "2.5", "x", "99999999999999999999"}) {
    try {
      number_between(1, 8, "--ranks", text);
      ADD_FAILURE() << text;
    } catch (InvalidArgument const& error) {
      EXPECT_EQ(std::string(error.what()),
                "--ranks: expected a whole number from 1 to 8, seen '" + std::string(text) + "'");
    }
  }
}

}  // namespace
}  // namespace switchyard
