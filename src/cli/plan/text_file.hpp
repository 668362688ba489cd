// Small files that users write by hand.
#pragma once

#include <string>

namespace switchyard::cli {

// The whole file. Throws InvalidArgument, naming it, when it cannot be read or has more than a megabyte.
std::string read_text(std::string const& path);

}  // namespace switchyard::cli
