#include "cli/print.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "base/check.hpp"

namespace switchyard::cli {

void hold_standard_streams() {
  // The other way round, so that nothing can be read or written.
  constexpr std::array modes{O_WRONLY, O_RDONLY, O_RDONLY};
  for (int stream = 0; stream < static_cast<int>(modes.size()); ++stream) {
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF)
      check_call(::open("/dev/null", modes[static_cast<std::size_t>(stream)]), "open /dev/null");
  }
}

void print(std::FILE* stream, std::string_view text) {
  bool const written = std::fwrite(text.data(), 1, text.size(), stream) == text.size() && std::fflush(stream) == 0;
  if (!written)
    throw_errno(stream == stderr ? "standard error: cannot be written" : "standard output: cannot be written");
}

void say_line(std::string_view text) {
  std::string const line = fmt::format("switchyard: {}\n", text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace switchyard::cli
