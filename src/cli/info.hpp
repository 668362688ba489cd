// `switchyard info`: what this machine and this build offer.
#pragma once

namespace switchyard::cli {

// Prints a text, or JSON. Throws SystemError when it cannot.
void run_info(bool as_json);

}  // namespace switchyard::cli
