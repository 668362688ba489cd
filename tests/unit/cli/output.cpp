// What the command could not write is an error, and a run that fails leaves no results.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/bench/result_file.hpp"
#include "switchyard/error.hpp"
#include "unit/cli/shell.hpp"

namespace switchyard::cli {
namespace {

using testing::HasSubstr;

std::string const trace = std::string("$S trace") + small;

class Output : public testing::Test {
 protected:
  Shell shell_;
};

// The full disk says so when it is written to, the closed stream has no number.
TEST_F(Output, OnAFullOrClosedStandardOutputIsAnError) {
  for (std::string const& command :
       {std::string("$S info"), std::string("$S info --json"), std::string("$S --help"),
        std::string("$S bench --help"), std::string("$S --version"), bench, bench + "--json -",
        bench + "--mode latency", trace}) {
    for (auto const& [where, why] : {std::pair{" > /dev/full", "No space left"}, std::pair{" >&-", "Bad file"}}) {
      auto const outcome = shell_.run(command + where);
      EXPECT_EQ(outcome.status, 1) << command << where;
      EXPECT_THAT(outcome.err, HasSubstr("standard output: cannot be written: " + std::string(why))) << command;
    }
  }
  EXPECT_EQ(shell_.files(), 0);
}

// Of each NIC the command says that it would be used, or why not.
TEST_F(Output, OfInfoListsNics) {
  auto const outcome = shell_.run("$S info --json");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  auto const fabric = nlohmann::json::parse(outcome.out)["fabric"];
  EXPECT_TRUE(fabric["why_none"] != "" || !fabric["nics"].empty());
  for (auto const& nic : fabric["nics"]) EXPECT_EQ(nic["chosen"].get<bool>(), nic["why_not"] == "") << nic;
  if (fabric["library"] == "") return;  // a build without it, or a machine
  auto const without = shell_.run("SWITCHYARD_LIBFABRIC=nowhere.so $S info --json");
  EXPECT_THAT(nlohmann::json::parse(without.out)["fabric"]["why_none"].get<std::string>(), HasSubstr("nowhere.so"));
}

TEST_F(Output, OfTheTableOnStandardErrorIsCheckedToo) {
  EXPECT_EQ(shell_.run(bench + "--json - 2> /dev/full").status, 1);
  EXPECT_EQ(shell_.run(bench + "--json - 2>&-").status, 1);
}

// Descriptors that a program is started without must not be given to the files that it opens.
TEST_F(Output, NeverGoesToAFileThatTookItsPlace) {
  EXPECT_EQ(shell_.run(bench + "--json results.json <&-").status, 0);
  EXPECT_EQ(nlohmann::json::parse(shell_.read("results.json"))["schema"], "switchyard-bench/1");
  EXPECT_NE(shell_.run(bench + "--json other.json <&- >&- 2>&-").status, 0);
  EXPECT_EQ(shell_.files(), 1);
}

TEST_F(Output, GoesToItsFile) {
  shell_.write("results.json", "old");
  auto const outcome = shell_.run(bench + "--json results.json");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(nlohmann::json::parse(shell_.read("results.json"))["ranks"], 2);
  for (char const* const mode : {"throughput", "latency"}) {
    auto const all = nlohmann::json::parse(shell_.run(bench + "--tokens 16 --mode " + mode + " --json -").out);
    auto const one = all.contains("cases") ? all["cases"][0] : all;
    for (char const* const call : {"dispatch", "combine"}) {
      EXPECT_EQ(one["between_ranks"][call]["bytes"].size(), 2U) << mode;
      EXPECT_EQ(one["between_ranks"][call]["wait_us"][1].size(), 2U) << mode;
    }
    EXPECT_EQ(one["expert_tokens"][1].size(), 256U) << mode;
    EXPECT_FALSE(one["phases_us"].empty()) << mode;
  }
  EXPECT_EQ(nlohmann::json::parse(shell_.run(bench + "--json -").out)["ranks"], 2);
  EXPECT_EQ(shell_.run(trace + "--trace trace.json").status, 0);
  EXPECT_FALSE(nlohmann::json::parse(shell_.read("trace.json"))["traceEvents"].empty());
  EXPECT_EQ(shell_.files(), 2);
}

TEST_F(Output, OfARunThatFailsIsNone) {
  shell_.write("old.json", "old");
  for (std::string const file : {"old.json", "new.json"}) {
    EXPECT_NE(shell_.run("SWITCHYARD_TIMEOUT_MS=x " + bench + "--json " + file).status, 0);
    EXPECT_NE(shell_.run("SWITCHYARD_TIMEOUT_MS=x " + bench + "--mode latency --json " + file).status, 0);
    EXPECT_NE(shell_.run("SWITCHYARD_TIMEOUT_MS=x " + trace + "--trace " + file).status, 0);
  }
  EXPECT_EQ(shell_.read("old.json"), "old");
  EXPECT_EQ(shell_.files(), 1);
}

TEST_F(Output, ThatCannotBeWrittenIsRefusedBeforeTheWork) {
  std::filesystem::create_directory(shell_.path("folder"));
  for (std::string const file : {"folder", "missing/results.json"}) {
    for (std::string const option : {"--json ", "--trace "}) {
      auto const outcome = shell_.run(bench + option + file);
      EXPECT_EQ(outcome.status, 2);
      EXPECT_EQ(outcome.out, "");
      EXPECT_THAT(outcome.err, HasSubstr(file + ": cannot be written: "));
    }
  }
}

TEST_F(Output, ThatFindsNoRoomIsAnError) {
  for (std::string const option : {"--json ", "--trace "}) {
    auto const outcome = shell_.run(bench + option + "/dev/full");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("/dev/full: cannot be written: No space left"));
  }
}

TEST_F(Output, GoesIntoAPipe) {
  auto const outcome = shell_.run("mkfifo pipe && { cat pipe > got & " + bench + "--json pipe && wait; }");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(nlohmann::json::parse(shell_.read("got"))["ranks"], 2);
}

TEST_F(Output, KeepsLinksAndModes) {
  namespace fs = std::filesystem;
  shell_.write("real", "old");
  fs::permissions(shell_.path("real"), fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("real", shell_.path("link"));
  write_file(shell_.path("link"), "through the link");
  EXPECT_TRUE(fs::is_symlink(shell_.path("link")));
  EXPECT_EQ(shell_.read("real"), "through the link");
  write_file(shell_.path("real"), "directly");
  EXPECT_EQ(shell_.read("real"), "directly");
  EXPECT_EQ(fs::status(shell_.path("real")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(shell_.files(), 2);
}

TEST_F(Output, OfWhichHalfWasWrittenIsNone) {
  shell_.write("results.json", "old");
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit const small_files{.rlim_cur = 100, .rlim_max = before.rlim_max};
  ::signal(SIGXFSZ, SIG_IGN);  // the write that passes the limit fails then
  ::setrlimit(RLIMIT_FSIZE, &small_files);
  EXPECT_THROW(write_file(shell_.path("results.json"), std::string(1000, 'x')), SystemError);
  EXPECT_THROW(write_file(shell_.path("new.json"), std::string(1000, 'x')), SystemError);
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(shell_.read("results.json"), "old");
  EXPECT_EQ(shell_.files(), 1);
}

}  // namespace
}  // namespace switchyard::cli
