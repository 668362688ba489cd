// Which SWITCHYARD_ variables are taken for misspelt ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "base/nearest.hpp"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

// In two parts, so that the last test does not take them for names that the tree uses.
std::string variable(std::string const& rest) {
  return "SWITCHYARD"
         "_" +
         rest;
}

std::vector<std::string> unknown(std::vector<std::string> const& names) {
  return unknown_variables(names);
}

TEST(Nearest, IsTheOneWithTheFewestChanges) {
  std::vector<std::string_view> const commands{"bench", "info", "trace"};
  EXPECT_EQ(nearest("benhc", commands), "bench");
  EXPECT_EQ(nearest("tracer", commands), "trace");
  EXPECT_EQ(nearest("inf", commands), "info");
  EXPECT_EQ(nearest("simulate", commands), "");
  EXPECT_EQ(nearest("", commands), "");
  EXPECT_EQ(nearest("bench", {}), "");
  EXPECT_EQ(did_you_mean("benhc", commands), "; did you mean bench?");
  EXPECT_EQ(did_you_mean("simulate", commands), "");
}

TEST(Variables, AMisspeltOneIsNamedWithTheNearest) {
  EXPECT_THAT(unknown({variable("TIMEOUT"), "HOME", variable("ENGIN")}),
              ElementsAre(AllOf(StartsWith(variable("TIMEOUT:")), EndsWith("did you mean SWITCHYARD_TIMEOUT_MS?")),
                          AllOf(StartsWith(variable("ENGIN:")), EndsWith("did you mean SWITCHYARD_ENGINE?"))));
}

TEST(Variables, OneThatIsLikeNoneIsNamedAlone) {
  EXPECT_THAT(unknown({variable("COMPLETELY_DIFFERENT")}),
              ElementsAre(AllOf(StartsWith(variable("COMPLETELY_DIFFERENT")), Not(HasSubstr("did you mean")))));
}

TEST(Variables, ThoseOfOthersAreTheirs) {
  EXPECT_THAT(unknown({"SWITCHYARD", "SWITCHYARDS_X", "RANK", ""}), IsEmpty());
}

std::string text_of(std::filesystem::path const& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Names of environment variables are in quotes in C++ and Python, after a dollar or before an equals sign in shell.
std::set<std::string> names_in(std::string const& text) {
  static std::regex const pattern(
      R"re("(SWITCHYARD_[A-Z0-9_]+)"|\$\{?(SWITCHYARD_[A-Z0-9_]+)|[ "'`](SWITCHYARD_[A-Z0-9_]+)=[^=])re");
  std::set<std::string> names;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(variable("")) == std::string::npos) continue;  // most: the pattern takes its time
    line += '\n';
    for (std::sregex_iterator match(line.begin(), line.end(), pattern), end; match != end; ++match)
      for (std::size_t group = 1; group <= 3; ++group)
        if ((*match)[group].matched) names.insert((*match)[group].str());
  }
  return names;
}

TEST(Variables, AllThatTheTreeUsesAreKnown) {
  std::filesystem::path const root = SOURCE_TREE;
  std::set<std::string> names = names_in(text_of(root / "dev") + text_of(root / ".ci/run"));
  for (char const* folder : {"src", "python", "tools", "tests", "bench", "examples"}) {
    for (auto const& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file() || entry.path().filename() == "CMakeLists.txt") continue;
      names.merge(names_in(text_of(entry.path())));
    }
  }
  EXPECT_GT(names.size(), 12U);  // or the pattern finds none
  EXPECT_THAT(unknown({names.begin(), names.end()}), IsEmpty());
}

}  // namespace
}  // namespace switchyard
