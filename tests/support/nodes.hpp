// A job of three nodes of two ranks, which are network namespaces.
#pragma once

#include <memory>
#include <string>

#include "support/casualty.hpp"
#include "support/namespaces.hpp"

namespace switchyard::test {

inline constexpr int num_nodes = 3;
inline constexpr int per_node = 2;
inline constexpr int num_node_ranks = num_nodes * per_node;

// Ranks of a node have consecutive numbers.
constexpr int node_of(int rank) {
  return rank / per_node;
}

// As errors name it.
inline std::string name_of_rank(int rank) {
  return text("rank ", rank, " (node ", node_of(rank), ")");
}

class Nodes : public testing::Test {
 protected:
  // `nics`: of each node.
  explicit Nodes(int nics = 1, Family family = Family::ipv4) : nics_(nics), family_(family) {}

  void SetUp() override {
    std::string const why_not = Namespaces::why_not();
    if (!why_not.empty()) GTEST_SKIP() << why_not;
    namespaces_ = std::make_unique<Namespaces>(num_nodes, nics_, family_);
  }

  [[nodiscard]] Processes start(RankBody const& body,
                                std::chrono::milliseconds timeout = std::chrono::milliseconds{30000}) const {
    auto const before = [this, timeout](int rank) {
      namespaces_->enter(node_of(rank));
      setenv("SWITCHYARD_RENDEZVOUS_TIMEOUT_MS", std::to_string(timeout.count()).c_str(), 1);
    };
    return {num_node_ranks, body, before, Namespaces::address(0)};
  }

  std::unique_ptr<Namespaces> namespaces_;

 private:
  int nics_;
  Family family_;
};

}  // namespace switchyard::test
