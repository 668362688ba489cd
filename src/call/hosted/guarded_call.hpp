// Reports to the peers what goes wrong in a call on this rank only, since they would wait for it in vain.
#pragma once

#include <fmt/core.h>

#include <exception>
#include <new>

#include "control/signals.hpp"

namespace switchyard {

struct CallPlace {
  int rank = 0;
  char const* phase = "";
};

template <typename Call>
void guarded_call(Signals& signals, CallPlace const& place, Call const& call) {
  try {
    call();
  } catch (Error const&) {
    throw;  // every rank throws it, or Signals::fail() has reported it
  } catch (std::bad_alloc const&) {
    signals.fail(OutOfMemory(fmt::format("rank {}: no memory for the call's own tables", place.rank),
                             {.rank = place.rank, .phase = place.phase}));
  } catch (std::exception const& error) {
    signals.fail(SystemError(fmt::format("rank {}: {}", place.rank, error.what()),
                             {.rank = place.rank, .phase = place.phase}));
  }
}

}  // namespace switchyard
