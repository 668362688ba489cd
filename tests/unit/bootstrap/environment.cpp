// The variables of every launcher.
#include "bootstrap/environment.hpp"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using Variables = std::map<std::string, std::string>;

CommunicatorOptions options_of(Variables const& variables) {
  return options_from_environment([&](std::string const& name) -> std::optional<std::string> {
    auto const found = variables.find(name);
    return found != variables.end() ? std::optional(found->second) : std::nullopt;
  });
}

// The error must name the variable and what was seen.
void expect_refused(Variables const& variables, std::string const& variable, std::string const& seen) {
  try {
    options_of(variables);
    ADD_FAILURE() << "not refused: " << variable;
  } catch (InvalidArgument const& error) {
    std::string const what = error.what();
    EXPECT_EQ(what.rfind(variable, 0), 0U) << what;
    EXPECT_NE(what.find(seen), std::string::npos) << what;
  }
}

int port_of(CommunicatorOptions const& options) {
  return std::stoi(options.address.substr(options.address.rfind(':') + 1));
}

Variables torchrun() {
  return {{"RANK", "3"},
          {"WORLD_SIZE", "8"},
          {"MASTER_ADDR", "node-0"},
          {"MASTER_PORT", "29500"},
          {"TORCHELASTIC_RUN_ID", "run"}};
}

Variables mpirun() {
  return {{"OMPI_COMM_WORLD_RANK", "1"},
          {"OMPI_COMM_WORLD_SIZE", "4"},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
          {"PMIX_NAMESPACE", "prterun-host-1234@1"}};
}

TEST(Environment, Torchrun) {
  CommunicatorOptions const options = options_of(torchrun());
  EXPECT_EQ(options.rank, 3);
  EXPECT_EQ(options.size, 8);
  EXPECT_EQ(options.address, "node-0:29501");  // MASTER_PORT is the launcher's own
  EXPECT_FALSE(options.token.empty());
  EXPECT_TRUE(options.serve);
}

TEST(Environment, OpenMpi) {
  CommunicatorOptions const options = options_of(mpirun());
  EXPECT_EQ(options.rank, 1);
  EXPECT_EQ(options.size, 4);
  EXPECT_EQ(options.address.rfind("127.0.0.1:", 0), 0U);
  EXPECT_GE(port_of(options), 20000);
  EXPECT_LE(port_of(options), 29999);
}

TEST(Environment, RanksOfAJobAgreeAndJobsDiffer) {
  Variables variables = mpirun();
  CommunicatorOptions const one = options_of(variables);
  variables["OMPI_COMM_WORLD_RANK"] = "2";
  CommunicatorOptions const two = options_of(variables);
  EXPECT_EQ(one.address, two.address);
  EXPECT_EQ(one.token, two.token);
  variables["PMIX_NAMESPACE"] = "another";
  EXPECT_NE(options_of(variables).address, one.address);
  EXPECT_NE(options_of(variables).token, one.token);
}

TEST(Environment, OpenMpiWithAnAddress) {
  Variables variables = mpirun();
  variables["MASTER_ADDR"] = "10.0.0.1";
  variables["MASTER_PORT"] = "1000";
  EXPECT_EQ(options_of(variables).address, "10.0.0.1:1001");
}

TEST(Environment, Pmi) {
  Variables variables{{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"SWITCHYARD_STORE", "localhost:4000"}};
  EXPECT_EQ(options_of(variables).size, 2);
  EXPECT_EQ(options_of(variables).address, "localhost:4000");
  variables.erase("SWITCHYARD_STORE");
  expect_refused(variables, "SWITCHYARD_STORE", "PMI_RANK");
  variables["PMI_JOBID"] = "77";
  EXPECT_GE(port_of(options_of(variables)), 20000);
}

TEST(Environment, Srun) {
  Variables variables{{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "6"}, {"SLURM_JOB_ID", "42"}, {"SLURM_STEP_ID", "0"}};
  CommunicatorOptions const first = options_of(variables);
  EXPECT_EQ(first.rank, 5);
  EXPECT_EQ(first.size, 6);
  variables["SLURM_STEP_ID"] = "1";
  EXPECT_NE(options_of(variables).token, first.token);
}

TEST(Environment, SwitchyardsOwnWin) {
  Variables variables = torchrun();
  variables.merge(mpirun());
  variables["SWITCHYARD_RANK"] = "0";
  variables["SWITCHYARD_WORLD_SIZE"] = "64";
  variables["SWITCHYARD_STORE"] = "127.0.0.1:5";
  variables["SWITCHYARD_TOKEN"] = "secret";
  CommunicatorOptions const options = options_of(variables);
  EXPECT_EQ(options.rank, 0);
  EXPECT_EQ(options.size, 64);
  EXPECT_EQ(options.address, "127.0.0.1:5");
  EXPECT_EQ(options.token, "secret");
}

TEST(Environment, OnlyAGivenTokenIsASecret) {
  Variables variables = torchrun();
  EXPECT_TRUE(options_of(variables).derived_token);
  variables["SWITCHYARD_TOKEN"] = "";
  EXPECT_TRUE(options_of(variables).derived_token);
  EXPECT_FALSE(options_of(variables).token.empty());
  variables["SWITCHYARD_TOKEN"] = "secret";
  EXPECT_FALSE(options_of(variables).derived_token);
}

TEST(Environment, AddressesOfIpv6) {
  Variables variables = torchrun();
  for (char const* host : {"::1", "[::1]"}) {
    variables["MASTER_ADDR"] = host;
    EXPECT_EQ(options_of(variables).address, "[::1]:29501");
  }
  variables["SWITCHYARD_STORE"] = "[fe80::1%eth0]:29400";
  EXPECT_EQ(options_of(variables).address, "[fe80::1%eth0]:29400");
  variables["SWITCHYARD_STORE"] = "::1:29400";
  expect_refused(variables, "SWITCHYARD_STORE", "'::1:29400'");
}

TEST(Environment, NobodyLaunchedUs) {
  expect_refused({}, "no launcher", "none");
}

TEST(Environment, Refused) {
  auto const with = [](Variables variables, char const* name, char const* value) {
    variables[name] = value;
    return variables;
  };
  auto const without = [](Variables variables, char const* name) {
    variables.erase(name);
    return variables;
  };
  for (char const* bad : {"", "x", "3x", " 3", "+3", "-1", "8", "0x3", "99999999999999"})
    expect_refused(with(torchrun(), "RANK", bad), "RANK", fmt::format("'{}'", bad));
  for (char const* bad : {"0", "32768", "eight"})
    expect_refused(with(torchrun(), "WORLD_SIZE", bad), "WORLD_SIZE", fmt::format("'{}'", bad));
  for (char const* bad : {"0", "65535", "port"})
    expect_refused(with(torchrun(), "MASTER_PORT", bad), "MASTER_PORT", fmt::format("'{}'", bad));
  expect_refused(with(torchrun(), "MASTER_ADDR", ""), "MASTER_ADDR", "''");
  expect_refused(with(torchrun(), "MASTER_ADDR", "[::1"), "MASTER_ADDR", "'[::1'");
  expect_refused(without(torchrun(), "WORLD_SIZE"), "WORLD_SIZE", "RANK is set");
  expect_refused(without(torchrun(), "MASTER_ADDR"), "MASTER_ADDR", "none");
  expect_refused(without(torchrun(), "MASTER_PORT"), "MASTER_PORT", "none");
  expect_refused(without(without(torchrun(), "MASTER_PORT"), "MASTER_ADDR"), "MASTER_ADDR", "none");
  expect_refused(with(torchrun(), "SWITCHYARD_STORE", "nowhere"), "SWITCHYARD_STORE", "'nowhere'");
  expect_refused(with(torchrun(), "SWITCHYARD_RANK", "0"), "SWITCHYARD_WORLD_SIZE", "none");
  expect_refused(with(torchrun(), "SWITCHYARD_WORLD_SIZE", "2"), "SWITCHYARD_RANK", "none");
  expect_refused(with(mpirun(), "OMPI_COMM_WORLD_LOCAL_SIZE", "2"), "OMPI_COMM_WORLD_LOCAL_SIZE", "seen 2");
  expect_refused(without(mpirun(), "PMIX_NAMESPACE"), "SWITCHYARD_STORE", "OMPI_COMM_WORLD_RANK");
}

}  // namespace
}  // namespace switchyard
