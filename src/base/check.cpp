#include "base/check.hpp"

namespace switchyard {

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
