// Buffer::reset(), on either engine. docs/protocol.md says why it is safe.
#pragma once

#include <exception>

#include "control/counters.hpp"
#include "node/agreement.hpp"

namespace switchyard {

// The same error, as one of the reset of `rank`.
Error of_reset(int rank, Error const& error);

// Collective. Each agreement is a barrier: no rank is past it before all have come to it.
template <typename Engine>
void reset_together(RankGroup& ranks, Engine& engine) {
  try {
    agree(ranks, refusal_of([&] { engine.end_work(); }));
    // Here no rank works on an old call any more: none raises a flag, writes rows, or reports a failure.
    Counters const agreed = largest_of_all(ranks, engine.counters());
    agree(ranks, refusal_of([&] { engine.clean(agreed); }));
    // Here every rank is clean: news that come now are of new calls.
  } catch (Error const& error) {
    engine.give_up(of_reset(ranks.rank(), error));
  } catch (std::exception const& error) {
    engine.give_up(of_reset(ranks.rank(), SystemError(error.what())));
  }
}

}  // namespace switchyard
