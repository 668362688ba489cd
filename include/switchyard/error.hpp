// The exceptions that Switchyard throws for anything that a program can recover from.
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

// Where an error happened. -1 stands for no rank.
struct ErrorFacts {
  int rank = -1;        // the rank at fault, or that found the fault
  int peer = -1;        // the rank that was waited for
  std::string phase{};  // the part of the call, such as "dispatch/arrive"
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

// A wrong argument, found before anything moved: the buffer stays usable. The text reads "name: expected this, seen
// that".
using InvalidArgument = ErrorOf<ErrorCode::invalid_argument>;
// A wait reached its deadline. `peer` is the rank that did not come.
using Timeout = ErrorOf<ErrorCode::timeout>;
// A peer's process ended, or left the job, while it was waited for.
using PeerLost = ErrorOf<ErrorCode::peer_lost>;
// The symmetric heap, or the system, does not have enough memory; the text says how much was needed.
using OutOfMemory = ErrorOf<ErrorCode::out_of_memory>;
// This build or machine does not offer what was asked for.
using Unsupported = ErrorOf<ErrorCode::unsupported>;
// The operating system refused a call; the text carries its reason.
using SystemError = ErrorOf<ErrorCode::system>;

}  // namespace switchyard
