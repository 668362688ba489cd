// The one family of exceptions that Switchyard throws for recoverable trouble.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace switchyard {

enum class ErrorCode : unsigned char {
  invalid_argument = 1,
  timeout,
  peer_lost,
  out_of_memory,
  unsupported,
  system
};

// Where it happened and what was seen. `rank` is the rank at fault (or that found the fault), `peer` the
// rank that was waited for; -1 where there is none.
struct ErrorFacts {
  int rank = -1;
  int peer = -1;
  std::string phase{};
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string const& what, ErrorFacts facts = {})
      : std::runtime_error(what), code_(code), facts_(std::move(facts)) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] int rank() const noexcept { return facts_.rank; }
  [[nodiscard]] int peer() const noexcept { return facts_.peer; }
  [[nodiscard]] std::string const& phase() const noexcept { return facts_.phase; }

 private:
  ErrorCode code_;
  ErrorFacts facts_;
};

template <ErrorCode Code>
class ErrorOf : public Error {
 public:
  explicit ErrorOf(std::string const& what, ErrorFacts facts = {}) : Error(Code, what, std::move(facts)) {}
};

// A wrong argument, found before anything moved: the buffer stays usable.
using InvalidArgument = ErrorOf<ErrorCode::invalid_argument>;
// A wait ran into its deadline.
using Timeout = ErrorOf<ErrorCode::timeout>;
// A peer's process ended, or left the job, while it was waited for.
using PeerLost = ErrorOf<ErrorCode::peer_lost>;
// The symmetric heap (or the system) has not enough memory; the text says how much was needed.
using OutOfMemory = ErrorOf<ErrorCode::out_of_memory>;
// Asked for something that this build or machine does not offer.
using Unsupported = ErrorOf<ErrorCode::unsupported>;
// The operating system refused a call; the text carries its reason.
using SystemError = ErrorOf<ErrorCode::system>;

}  // namespace switchyard
