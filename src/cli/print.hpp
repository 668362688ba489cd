// The command's way to standard output and standard error.
#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <string_view>
#include <utility>

namespace switchyard::cli {

// Puts something into each of the three standard streams that this process was started without, on which reading
// and writing fail as on a closed one. Otherwise the first files and sockets that are opened would get their
// numbers, and results would be written into those. Call it before anything is opened.
void hold_standard_streams();

// Writes to standard output or standard error at once. Throws SystemError, naming the stream, when the text could
// not be written.
void print(std::FILE* stream, std::string_view text);

// A line for people on standard error, after "switchyard: ". What cannot be written there is lost: an error that it
// is about shows in the exit status, too.
void say_line(std::string_view text);
template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  say_line(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace switchyard::cli
