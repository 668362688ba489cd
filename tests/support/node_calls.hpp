// Dispatches and combines over three nodes, for tests in which something goes wrong between them.
#pragma once

#include <algorithm>
#include <vector>

#include "support/nodes.hpp"

namespace switchyard::test {

inline std::vector<int> node_by_rank() {
  std::vector<int> nodes;
  for (int rank = 0; rank < num_node_ranks; ++rank) nodes.push_back(node_of(rank));
  return nodes;
}

// Small, so that its values are soon checked.
inline Case node_case() {
  return {.launch = Launch::processes,
          .ranks = num_node_ranks,
          .nodes = node_by_rank(),
          .tokens = 48,
          .counts = Tokens::equal,
          .hidden = 256,
          .experts = 24,
          .top_k = 4};
}

// Large enough that a call takes a while, however fast the machine.
inline Case large_node_case() {
  Case c = node_case();
  c.tokens = 512;
  c.hidden = 4096;
  c.workers = 2;
  return c;
}

inline BufferOptions node_options(Problem const& p, std::chrono::milliseconds timeout = std::chrono::seconds{30}) {
  BufferOptions options = options_for(p, 4);
  options.timeout = timeout;
  return options;
}

// Without checks, so that most of the time goes to the library. Until it fails.
inline void call_until_failure(Buffer& buffer, Problem const& p) {
  RankInputs const inputs(p, buffer.communicator().rank());
  for (;;) {
    Dispatched const received = buffer.dispatch(inputs.args());
    (void)buffer.combine(received.x, received.handle);
  }
}

inline void check_until_failure(Buffer& buffer, Problem const& p) {
  for (;;) round_trip(p, buffer);
}

// The error must be an `Expected` that names one of the victims, with its node.
template <typename Expected, typename Action>
Expected lose_one(std::vector<int> const& victims, Action&& action) {
  auto const error = expect_throw<Expected>("losing a rank", action);
  check(std::ranges::find(victims, error.peer()) != victims.end(), "peer of the error: expected ", victims.front(),
        ", seen ", error.peer(), ": ", error.what());
  check_names(error, {name_of_rank(error.peer())});
  return error;
}

// Runs `action` as a survivor of the victim; see survive().
template <typename Expected, typename Action>
void survive_on_nodes(Board& board, int victim, Action&& action) {
  auto const error = survive<Expected>(board, victim, num_node_ranks - 1, action);
  check_names(error, {name_of_rank(victim)});
}

// Victims must have died by `signal`, and all others have ended well.
inline void expect_others_well(std::vector<Outcome> const& outcomes, std::vector<int> const& victims, int signal) {
  for (int rank = 0; rank < static_cast<int>(outcomes.size()); ++rank) {
    Outcome const& outcome = outcomes[index(rank)];
    if (std::ranges::find(victims, rank) == victims.end()) {
      EXPECT_TRUE(outcome.ok) << "rank " << rank << ": " << outcome.what;
    } else {
      EXPECT_EQ(outcome.signal, signal) << "victim " << rank << ": " << outcome.what;
    }
  }
}

}  // namespace switchyard::test
