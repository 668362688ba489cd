// Files that a benchmark writes: complete, or not at all.
#pragma once

#include <string>
#include <string_view>

namespace switchyard::cli {

// Throws InvalidArgument when `path` could not be written as things are: better to find out before the work than
// after it. Leaves no trace.
void require_writable(std::string const& path);

// Writes beside `path` and renames, so that after an error what was there before is still there. A pipe or
// device, a file behind a link, and one in a folder where nothing can be created are written in place. Throws
// SystemError.
void write_file(std::string const& path, std::string_view text);

}  // namespace switchyard::cli
