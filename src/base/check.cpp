#include "base/check.hpp"

#include <sys/resource.h>

#include <system_error>

namespace switchyard {

void throw_invalid(fmt::string_view format, fmt::format_args args) {
  throw InvalidArgument(fmt::vformat(format, args));
}

std::string text_of_errno(int error) {
  std::string text = std::system_category().message(error);
  if (error == ENFILE) return text + " (the limit of the whole machine; raise fs.file-max)";
  if (error != EMFILE) return text;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return fmt::format("{} (the limit is {}; raise it with ulimit -n)", text, limit.rlim_cur);
}

void throw_errno(std::string_view what, int error) {
  throw SystemError(fmt::format("{}: {}", what, text_of_errno(error)));
}

void throw_error(ErrorCode code, std::string const& text, ErrorFacts const& facts) {
  switch (code) {
    case ErrorCode::invalid_argument: throw InvalidArgument(text, facts);
    case ErrorCode::timeout: throw Timeout(text, facts);
    case ErrorCode::peer_lost: throw PeerLost(text, facts);
    case ErrorCode::out_of_memory: throw OutOfMemory(text, facts);
    case ErrorCode::unsupported: throw Unsupported(text, facts);
    case ErrorCode::system: break;
  }
  throw SystemError(text, facts);
}

}  // namespace switchyard
