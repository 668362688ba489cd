// The reset of a buffer, for both modes and engines. docs/protocol.md says why it is safe.
#pragma once

#include <exception>

#include "control/counters.hpp"
#include "node/agreement.hpp"

namespace switchyard {

// The same error as one of the reset, with the rank that found it.
Error of_reset(int rank, Error const& error);

// Collective. An engine brings end_work() (no call is under way afterwards), counters(), clean() (forgets the
// failure and counts on from there) and give_up() (fails the buffer and throws). Each agreement is a barrier: no
// rank passes it before all have come to it.
template <typename Engine>
void reset_together(RankGroup& ranks, Engine& engine) {
  try {
    agree(ranks, refusal_of([&] { engine.end_work(); }));
    // From here on no rank works on an old call: none raises a flag, writes rows, or reports a failure.
    Counters const agreed = largest_of_all(ranks, engine.counters());
    agree(ranks, refusal_of([&] { engine.clean(agreed); }));
    // From here on every rank is clean, and what peers signal belongs to new calls.
  } catch (Error const& error) {
    engine.give_up(of_reset(ranks.rank(), error));
  } catch (std::exception const& error) {
    engine.give_up(of_reset(ranks.rank(), SystemError(error.what())));
  }
}

}  // namespace switchyard
