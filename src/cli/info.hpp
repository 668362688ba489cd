// `switchyard info`: what this machine and this build offer.
#pragma once

namespace switchyard::cli {

// Prints a text, or JSON. Returns the exit status of the command.
int run_info(bool as_json);

}  // namespace switchyard::cli
