// How a rank's failure reaches the other ranks of its node, who throw it as it is.
#pragma once

#include <functional>
#include <optional>

#include "base/check.hpp"
#include "job/message.hpp"
#include "node/node.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

// What `step` throws; nothing when it passes.
template <typename Step>
std::optional<Error> failure_of(Step const& step) {
  try {
    step();
    return std::nullopt;
  } catch (Error const& error) {
    return error;
  } catch (std::exception const& error) {
    return SystemError(error.what());
  }
}

// What `gather` returns. When it throws as well, the failure that this rank knows of itself says more: the others
// may have given up, and left, before they could learn of it.
template <typename Gather>
auto gathered_or(std::optional<Error> const& failure, Gather const& gather) -> decltype(gather()) {
  try {
    return gather();
  } catch (Error const&) {
    if (failure)
      throw_error(failure->code(), failure->what(),
                  {.rank = failure->rank(), .peer = failure->peer(), .phase = failure->phase()});
    throw;
  }
}

// At the beginning of a message.
void put_failure(MessageWriter& message, std::optional<Error> const& failure);
// Throws the failure that the message begins with, as one of `rank`.
void throw_failure_in(MessageReader& message, int rank);

// Collective over the node: every rank runs the step, and all throw the failure of the first that has one. Ranks
// that are through wait as long for the others as these may wait elsewhere.
void step_together(Node& node, int rank, std::function<void()> const& step);

}  // namespace switchyard
