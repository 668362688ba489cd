// How far a job's token may be relied on.
//
// Without SWITCHYARD_TOKEN a token follows from the job's id and the user (environment.hpp). It keeps jobs apart
// that meet by mistake, but whoever knows both can compute it. So it is good for this machine only: the store
// listens on loopback, and ranks dial no address but this machine's own, which packets do not leave. So it is with
// no token at all.
#pragma once

#include <string>
#include <string_view>

#include "switchyard/communicator.hpp"

namespace switchyard {

// Whether these ranks have to stay on this machine. SWITCHYARD_ALLOW_DEFAULT_TOKEN=1 takes a derived token for a
// secret.
bool token_is_for_this_machine(CommunicatorOptions const& options);

// What such ranks are refused with, in a line; `because` says what would leave the machine.
std::string text_of_missing_token(CommunicatorOptions const& options, std::string_view because);

// Where rank 0 serves the store: SWITCHYARD_LISTEN if that is set, else the address of the store, where that is one
// of this machine and the token may be relied on, else loopback. Throws InvalidArgument when others could reach it
// and the token is for this machine only.
std::string where_to_listen(CommunicatorOptions const& options);

}  // namespace switchyard
