// What the command says of mistakes on its command line and in its surroundings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "unit/cli/shell.hpp"

namespace switchyard::cli {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class CommandLine : public testing::Test {
 protected:
  Shell shell_;
};

std::ptrdiff_t warnings_in(std::string const& text) {
  std::regex const warning("\\[switchyard [^\\n]*warning");
  return std::distance(std::sregex_iterator(text.begin(), text.end(), warning), std::sregex_iterator());
}

TEST_F(CommandLine, MistakesAreNamed) {
  for (auto const& [line, text] : {
           std::pair{"benhc", "benhc: no such command; did you mean bench?"},
           std::pair{"benhc --ranks 2", "benhc: no such command; did you mean bench?"},
           std::pair{"simulate", "simulate: no such command\n"},
           std::pair{"", "expected a command: bench, info, plan, report or trace"},
           std::pair{"--ranks 2", "--ranks: expected a command before options"},
           std::pair{"bench --hiden 5", "--hiden: bench has no such option; did you mean --hidden?"},
           std::pair{"trace --no-chek", "--no-chek: trace has no such option; did you mean --no-check?"},
           std::pair{"bench --rank=2", "--rank: bench has no such option; did you mean --ranks?"},
           std::pair{"info --yaml", "--yaml: info has no such option\n"},
           std::pair{"bench stray", "stray: bench takes options only"},
           std::pair{"bench --ranks two", "--ranks: expected a whole number from 1 to 2048, seen 'two'"},
           std::pair{"bench --ranks 65", "--ranks: expected at most 64, 64 a node, seen 65 on 1 node (--nodes)"},
           std::pair{"bench --ranks 4 --nodes 5", "--nodes: expected at most 4, one for each of --ranks, seen 5"},
           std::pair{"bench --dtype int8", "--dtype: int8 not in"},
           std::pair{"bench --layout rank", "--layout rank: --mode throughput has flat and expanded"},
       }) {
    auto const outcome = shell_.run(std::string("$S ") + line);
    EXPECT_EQ(outcome.status, 2) << line;
    EXPECT_EQ(outcome.out, "") << line;
    EXPECT_THAT(outcome.err, StartsWith(std::string("switchyard: ") + text)) << line;
  }
}

// What Python is asked to run, and with what, an interpreter of ours says.
TEST_F(CommandLine, ReportIsPythons) {
  shell_.write("python", "#!/bin/sh\necho \"$1\"; shift 2; printf '<%s>' \"$@\"; exit 3\n");
  auto const outcome =
      shell_.run("chmod +x python; SWITCHYARD_PYTHON=./python $S report 'a b.json' --title '' --help");
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(outcome.out, "-c\n<a b.json><--title><><--help>");
}

TEST_F(CommandLine, PlotIsAReportOfThePlan) {
  shell_.write("python", "#!/bin/sh\nshift 2; printf '<%s>' \"$@\"; cat > plan.json\n");
  auto const outcome = shell_.run(
      "chmod +x python; SWITCHYARD_PYTHON=./python $S plan --ranks 8 --tokens 128 --plot page.html > text; cat "
      "text");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("<-><--output><page.html><--title><switchyard plan>"));
  EXPECT_THAT(outcome.out, HasSubstr("choose"));
  EXPECT_THAT(shell_.read("plan.json"), HasSubstr("switchyard-plan/1"));
}

TEST_F(CommandLine, ReportSaysWhatIsMissing) {
  auto const none = shell_.run("SWITCHYARD_PYTHON=./nowhere $S report bench.json");
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, StartsWith("switchyard: report: expected the interpreter ./nowhere (SWITCHYARD_PYTHON"));
  shell_.write("python", "#!/bin/sh\nexec python3 -S -E \"$@\"\n");  // without packages
  auto const bare = shell_.run("chmod +x python; SWITCHYARD_PYTHON=./python $S report bench.json");
  EXPECT_EQ(bare.status, 1);
  EXPECT_THAT(bare.err, AllOf(StartsWith("switchyard report: the Python package switchyard draws it"),
                              HasSubstr("pip install 'switchyard[report]'")));
}

TEST_F(CommandLine, HelpAndVersionGoToStandardOutput) {
  EXPECT_THAT(shell_.run("$S --help").out, AllOf(HasSubstr("bench"), HasSubstr("trace")));
  EXPECT_THAT(shell_.run("$S bench --help").out, HasSubstr("--hidden INT in [1 - 1048576]"));
  EXPECT_THAT(shell_.run("$S --version").out, StartsWith("switchyard "));
}

// One rank of a job of one needs no peers to find.
TEST_F(CommandLine, RanksOfAJobAreThoseOfTheJob) {
  std::string const job = "export RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29517; ";
  auto const other = shell_.run(job + bench + "--ranks 4");
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.err, AllOf(HasSubstr("--ranks: expected 1"), HasSubstr("seen 4")));
  EXPECT_EQ(shell_.run(job + bench + "--mode latency --ranks 4").status, 2);
  EXPECT_THAT(shell_.run(job + bench + "--ranks 1").out, HasSubstr("switchyard bench: 1 ranks"));
  EXPECT_THAT(shell_.run(job + bench + "--ranks 2 --launch fork").out, HasSubstr("switchyard bench: 2 ranks"));
  auto const unsaid = shell_.run(job + "$S bench --engine cpu --tokens 16 --hidden 128 --iterations 1 --no-check");
  EXPECT_THAT(unsaid.out, HasSubstr("switchyard bench: 1 ranks"));
}

TEST_F(CommandLine, NodesOfAJobAreThoseOfTheJob) {
  std::string const job = "export RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29518; ";
  auto const other = shell_.run(job + bench + "--ranks 1 --nodes 2");
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.err, AllOf(HasSubstr("--nodes: expected 1"), HasSubstr("seen 2")));
  EXPECT_EQ(shell_.run(job + bench + "--ranks 1 --nodes 1").status, 0);
}

TEST_F(CommandLine, BothModesPlayNodes) {
  for (std::string const mode : {"throughput", "latency"}) {
    auto const outcome = shell_.run(bench + "--check --nodes 2 --mode " + mode);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("on 2 nodes"));
    EXPECT_THAT(outcome.out, HasSubstr("checked: every received byte and every combined value"));
  }
}

TEST_F(CommandLine, AMisspeltVariableIsWarnedOfOnce) {
  for (std::string const& command : {bench, std::string("$S info")}) {
    auto const outcome = shell_.run(
        "export SWITCHYARD"
        "_TIMEOUT=3; " +
        command);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(warnings_in(outcome.err), 1) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("SWITCHYARD"
                                       "_TIMEOUT: Switchyard reads no such variable; did you mean "
                                       "SWITCHYARD_TIMEOUT_MS?"));
  }
  auto const known = shell_.run("export SWITCHYARD_TIMEOUT_MS=20000 SWITCHYARD_TEST_SCALE=small; " + bench);
  EXPECT_EQ(known.err, "");
}

// Every byte is checked, also where there is none: of ranks that send or receive nothing, and of calls of no
// tokens.
TEST_F(CommandLine, BenchmarksCallsOfNoTokens) {
  std::string const job = "$S bench --engine cpu --ranks 3 --hidden 128 --experts 6 --top-k 2 --iterations 2 ";
  for (std::string const options :
       {"--tokens 0,1,5", "--tokens 0 --layout expanded", "--tokens 0,2 --routing all-to-one --outputs any",
        "--tokens 0,1 --dtype fp8-cast", "--tokens 0,1 --mode latency",
        "--tokens 0 --mode latency --layout rank"}) {
    auto const outcome = shell_.run(job + options);
    EXPECT_EQ(outcome.status, 0) << options << ": " << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("checked: every received byte")) << options;
  }
  EXPECT_THAT(shell_.run(job + "--tokens 0").out, HasSubstr("fixed cost: "));
}

// However few there are, each rank that gets none says so, and nobody waits for the end of a deadline.
TEST_F(CommandLine, RunningOutOfDescriptorsIsSaidOnce) {
  for (int limit = 6; limit <= 12; ++limit) {
    auto const outcome = shell_.run("ulimit -n " + std::to_string(limit) + "; " + bench);
    EXPECT_LE(warnings_in(outcome.err), 1) << outcome.err;
    EXPECT_THAT(outcome.err, Not(HasSubstr("in time"))) << limit;
    EXPECT_THAT(outcome.err, Not(HasSubstr("within"))) << limit;
    if (outcome.status == 0) continue;
    EXPECT_THAT(outcome.err, HasSubstr("raise it with ulimit -n")) << limit;
  }
}

TEST_F(CommandLine, WithoutALoopbackInterfaceNobodyWaits) {
  if (shell_.run("unshare --user --net true").status != 0) GTEST_SKIP() << "no network namespaces here";
  auto const outcome = shell_.run("unshare --user --net " + bench);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("Network is unreachable"), HasSubstr("ip link set lo up")));
  EXPECT_THAT(outcome.err, Not(HasSubstr("within")));
}

}  // namespace
}  // namespace switchyard::cli
