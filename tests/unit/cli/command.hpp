// Tests of one command as users run it: what `plan` answers, and how input that cannot be is refused.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "unit/cli/shell.hpp"

namespace switchyard::cli {

class CommandTest : public testing::Test {
 protected:
  nlohmann::ordered_json plan(std::string const& options) {
    auto const outcome = shell_.run("$S plan --json - " + options);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return nlohmann::ordered_json::parse(outcome.out, nullptr, false);
  }
  // That the command refuses, in one line that has all of these; a hint where to find its options may follow.
  // Returns all that it said.
  std::string refused(std::string const& command, std::string const& first, std::string const& second = "") {
    using testing::HasSubstr;
    auto const outcome = shell_.run("$S " + command);
    EXPECT_EQ(outcome.status, 2) << command;
    EXPECT_EQ(outcome.out, "") << command;
    EXPECT_THAT(outcome.err,
                testing::AllOf(testing::StartsWith("switchyard: "), HasSubstr(first), HasSubstr(second)))
        << command;
    EXPECT_EQ(std::ranges::count(outcome.err.substr(0, outcome.err.find("switchyard: run it")), '\n'), 1)
        << outcome.err;
    return outcome.err;
  }

  Shell shell_;
};

}  // namespace switchyard::cli
