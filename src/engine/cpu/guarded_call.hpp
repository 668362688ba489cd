// What goes wrong in a call on one rank only is told to its peers, which would wait in vain.
#pragma once

#include <fmt/core.h>

#include <exception>
#include <new>

#include "control/signals.hpp"

namespace switchyard::cpu {

struct CallPlace {
  int rank = 0;
  char const* phase = "";
};

template <typename Call>
void guarded_call(Signals& signals, CallPlace const& place, Call const& call) {
  try {
    call();
  } catch (Error const&) {
    throw;  // thrown on every rank, or told to them by Signals::fail()
  } catch (std::bad_alloc const&) {
    signals.fail(OutOfMemory(fmt::format("rank {}: no memory for the call's own tables", place.rank),
                             {.rank = place.rank, .phase = place.phase}));
  } catch (std::exception const& error) {
    signals.fail(SystemError(fmt::format("rank {}: {}", place.rank, error.what()),
                             {.rank = place.rank, .phase = place.phase}));
  }
}

}  // namespace switchyard::cpu
