// Where the experts of a model should lie, given how many tokens each of them gets.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace switchyard {

// Each layer has `replicas` physical experts, numbered through the GPUs: GPU g holds those from g * replicas / gpus
// on, and node n the GPUs from n * gpus / nodes on. A physical expert is a replica of one logical expert.
struct ExpertArgs {
  std::int64_t layers = 0;
  std::int64_t experts = 0;  // logical ones of a layer
  std::int64_t replicas = 0;
  std::int64_t groups = 1;  // of neighbouring experts; where nodes divide them, a group lies on one node as a whole
  std::int64_t nodes = 1;
  std::int64_t gpus = 1;  // of all nodes together
  // [layers, experts]: what each expert has to do, in any unit, finite and not negative.
  std::span<double const> load{};
  // [layers, replicas], or empty: the logical expert of each physical one so far.
  std::span<std::int64_t const> old{};
  // [layers, nodes or gpus, experts], or empty: tokens that each node, or each GPU, sends to each expert.
  std::span<double const> traffic{};
  // How much heavier than the heaviest GPU of the greedy algorithm one may be, as a part of it, if that saves moves
  // or tokens between nodes.
  double slack = 0;
  // Tokens that must stay inside of their nodes for each physical expert that moves for their sake. Infinite: none
  // moves for that alone. Without `old` all is new, and this means nothing.
  double move_cost = std::numeric_limits<double>::infinity();
};

struct ExpertPlan {
  std::int64_t most_replicas = 0;                 // of any expert in any layer
  std::vector<std::int64_t> physical_to_logical;  // [layers, replicas]
  std::vector<std::int64_t> logical_to_physical;  // [layers, experts, most_replicas]: ascending, then -1
  std::vector<std::int64_t> replica_count;        // [layers, experts]
  std::vector<double> imbalance;                  // [layers]: the heaviest GPU's load by the mean; 1 without load
  std::vector<std::int64_t> moved;                // [layers]: physical experts that are not what they were in `old`
  std::vector<double> crossing;                   // [layers]: tokens between nodes; empty without traffic
};

// An expert's load is split evenly between its replicas. No GPU of the result has more of it than the heaviest one
// of the greedy algorithm (DeepSeek's EPLB: replicas for whoever has the most load a replica, then the heaviest
// first to the least loaded GPU with room), times 1 + slack. Within that, `old` keeps what it can, and then tokens
// stay on their nodes where they can. Without either the heaviest GPU is made as light as a local search makes it.
//
// An expert's tokens are counted as crossing where its replicas on their own node, at equal shares, cannot take
// them; a token that goes to two experts counts twice.
//
// A pure function: equal arguments give equal plans on all ranks. Throws InvalidArgument.
[[nodiscard]] ExpertPlan plan_experts(ExpertArgs const& args);

}  // namespace switchyard
